#include "abi.h"
#include "choices.h"
#include "console.h"
#include "hostile.h"
#include "memory.h"
#include "native.h"
#include "paravirt-tables.h"
#include "start.h"
#include "vmi.h"

/*
 * VMI: a kernel of plain hardware that finds a ROM, and asks it for the code of each operation. An answer may be that there
 * is none, and then the operation stays what it was. Code of the ROM is called as C functions are, and that for the
 * interrupt flag keeps all registers, so that most of it stands in the operation tables as it is.
 */
/* The kernel uses no address from here on: DEVICE_BASE has one page table. */
#define KERNEL_END (DEVICE_BASE + ENTRIES * PAGE_SIZE)

static const struct vmi_rom *rom;

struct vmi_calls vmi;

static const struct vmi_rom *find_rom(void) {
  for (word address = ROM_START; address < ROM_END; address += ROM_STEP) {
    const struct vmi_rom *candidate = virtual(address);
    if (candidate->signature != ROM_SIGNATURE || !same_bytes(candidate->vmi_signature, "cVmi", 4)) continue;
    u32 leaves_room = candidate->virtual_top == 0 || candidate->virtual_top >= KERNEL_END;
    return candidate->major == API_MAJOR && candidate->pci_header && leaves_room ? candidate : NULL;
  }
  return NULL;
}

/*
 * A host that walks the kernel's own tables may have machine frame numbers in them, as Xen has. Entries are read by the ROM
 * then, and the ROM is told so before. The word `nomachine` keeps the kernel from that; of hostile ones, half do without.
 * With `plainread` it reads entries as memory all the same, which is wrong.
 */
static u32 has_machine_frames;

void vmi_use_machine_frames(void) {
  if (LEVELS < 3 || !same_bytes(rom->extension, "GPxE", 4)) return;
  u32 (*use)(void) = (u32(*)(void))(word)rom->use_machine_frames;
  has_machine_frames = use() == 0;
}

static u32 wants_machine_frames(void) {
  if (!word_value("hostile=")) return !has_word("nomachine");
  hostile_seed();
  return (u32)hostile_random(2);
}

/* NULL when the kernel is to keep its own. */
void *vmi_code(enum vmi_call call) {
  if ((call == VMI_GET_PXE_LONG || call == VMI_SWAP_PXE_LONG) && !has_machine_frames) return NULL;
  if (call == VMI_GET_PXE_LONG && has_word("plainread")) return NULL;
  u64 (*relocate)(u32 call) = (u64(*)(u32))(word)rom->relocate;
  u64 answer = relocate(call);
  switch ((u8)(answer >> 32)) {
    case RELOCATION_NONE:
      return NULL;
    case RELOCATION_NOP:
      return paravirt_nop;
    default:
      return (void *)(word)answer;
  }
}

static void vmi_load_tr_desc(void) { vmi.set_tr(TASK); }

static void vmi_load_sp0(word stack) {
  native_load_sp0(stack);
  vmi.update_kernel_stack(KERNEL_DATA | pv_info.kernel_rpl, stack);
}

/* EAX and ECX in; EAX, EBX, ECX, EDX out. */
static void vmi_cpuid(u32 *registers) {
  asm volatile("call *%4"
               : "+a"(registers[0]), "=b"(registers[1]), "+c"(registers[2]), "=d"(registers[3])
               : "m"(vmi.cpuid));
}

/* The processor begins in the kernel, with tables and segments of it. */
static void vmi_startup_ipi_hook(u32 apic, word ip, word stack) {
  struct table_pointer idt;
  word cr4;
  asm volatile("sidt %0" : "=m"(idt));
  asm volatile("movl %%cr4, %0" : "=r"(cr4));
  struct ap_state state = {
    .cr0 = 0x80050033, /* PG, AM, WP, NE, ET, MP, PE */
    .cr3 = (u32)physical(swapper_pg_dir),
    .cr4 = cr4,
    .eip = ip,
    .esp = stack,
    .cs = (u16)(KERNEL_CODE | pv_info.kernel_rpl),
    .ss = (u16)(KERNEL_DATA | pv_info.kernel_rpl),
    .ds = USER_DATA,
    .es = USER_DATA,
    .gdt_limit = GDT_ENTRIES * 8 - 1,
    .gdt_base = (u32)gdt_pages[0],
    .idt_base = idt.base,
    .idt_limit = idt.limit,
  };
  vmi.set_initial_ap_state(&state, apic);
}

/* A pointer besides those of the tables, and the call whose code it gets. */
static const struct adoption {
  enum vmi_call call;
  void **pointer;
} adoptions[] = {
  {VMI_SHUTDOWN, (void **)&end_machine},
  {VMI_CPUID, &vmi.cpuid},
  {VMI_SET_TR, (void **)&vmi.set_tr},
  {VMI_UPDATE_KERNEL_STACK, (void **)&vmi.update_kernel_stack},
  {VMI_SET_INITIAL_AP_STATE, (void **)&vmi.set_initial_ap_state},
};

static void adopt(void) {
  for (u32 index = 0; index < COUNT(adoptions); index++) {
    void *code = vmi_code(adoptions[index].call);
    if (code) *adoptions[index].pointer = code;
  }
}

/* The ROM's own code. */
#define ROM_CHOICE(group, op, call) CHOICE_IF(ON_VMI, group, op, NULL, call)

CHOICES(vmi) = {
  ROM_CHOICE(cpu, load_gdt, VMI_SET_GDT),
  ROM_CHOICE(cpu, load_idt, VMI_SET_IDT),
  ROM_CHOICE(cpu, write_gdt_entry, VMI_WRITE_GDT_ENTRY),
  ROM_CHOICE(cpu, read_tsc, VMI_RDTSC),
  ROM_CHOICE(cpu, io_delay, VMI_IO_DELAY),
  ROM_CHOICE(cpu, iret, VMI_IRET),
  ROM_CHOICE(irq, irq_enable, VMI_ENABLE_INTERRUPTS),
  ROM_CHOICE(irq, irq_disable, VMI_DISABLE_INTERRUPTS),
  ROM_CHOICE(irq, save_fl, VMI_GET_INTERRUPT_MASK),
  ROM_CHOICE(irq, restore_fl, VMI_SET_INTERRUPT_MASK),
  ROM_CHOICE(irq, safe_halt, VMI_HALT),
  ROM_CHOICE(apic, apic_write, VMI_APIC_WRITE),
  ROM_CHOICE(apic, apic_read, VMI_APIC_READ),
  ROM_CHOICE(misc, set_lazy_mode, VMI_SET_LAZY_MODE),
  ROM_CHOICE(mmu, read_cr2, VMI_GET_CR2),
  ROM_CHOICE(mmu, read_cr3, VMI_GET_CR3),
  ROM_CHOICE(mmu, write_cr3, VMI_SET_CR3),
  ROM_CHOICE(mmu, flush_tlb_single, VMI_INVAL_PAGE),
  CHOICE_IF(ON_VMI, cpu, cpuid, vmi_cpuid, VMI_CPUID),
  CHOICE_IF(ON_VMI, cpu, load_tr_desc, vmi_load_tr_desc, VMI_SET_TR),
  CHOICE_IF(ON_VMI, cpu, load_sp0, vmi_load_sp0, VMI_UPDATE_KERNEL_STACK),
  CHOICE_IF(ON_VMI, apic, startup_ipi_hook, vmi_startup_ipi_hook, VMI_SET_INITIAL_AP_STATE),
};

static const void *if_in_rom(const struct choice *choice) {
  const void *code = vmi_code(choice->needs);
  return code && choice->function ? choice->function : code;
}

void vmi_detect(void) {
  rom = find_rom();
  if (!rom) return;
  u32 (*initialise)(void) = (u32(*)(void))(word)rom->initialise;
  if (initialise() != 0) return;
  if (wants_machine_frames()) vmi_use_machine_frames();
  pv_info.name = "VMI";
  /* The ROM may have put the kernel into another ring. */
  asm volatile("mov %%cs, %0" : "=r"(pv_info.kernel_rpl));
  pv_info.kernel_rpl &= 3;
  adopt();
  vmi_begin_tables();
  vmi_begin_time();
  install_operations(ON_VMI, if_in_rom);
}
