#include "abi.h"
#include "console.h"
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

/* NULL when the kernel is to keep its own. */
void *vmi_code(enum vmi_call call) {
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

/* A pointer of one of the tables, or of `vmi`, and the call whose code it gets. */
struct adoption {
  enum vmi_call call;
  void **pointer;
};

static void adopt(const struct adoption *adoptions, u32 count) {
  for (u32 index = 0; index < count; index++) {
    void *code = vmi_code(adoptions[index].call);
    if (code) *adoptions[index].pointer = code;
  }
}

#define ADOPT(call, place) {call, (void **)&place}

static const struct adoption adoptions[] = {
  ADOPT(VMI_SET_GDT, pv_cpu_ops.load_gdt),
  ADOPT(VMI_SET_IDT, pv_cpu_ops.load_idt),
  ADOPT(VMI_WRITE_GDT_ENTRY, pv_cpu_ops.write_gdt_entry),
  ADOPT(VMI_RDTSC, pv_cpu_ops.read_tsc),
  ADOPT(VMI_IO_DELAY, pv_cpu_ops.io_delay),
  ADOPT(VMI_IRET, pv_cpu_ops.iret),
  ADOPT(VMI_ENABLE_INTERRUPTS, pv_irq_ops.irq_enable),
  ADOPT(VMI_DISABLE_INTERRUPTS, pv_irq_ops.irq_disable),
  ADOPT(VMI_GET_INTERRUPT_MASK, pv_irq_ops.save_fl),
  ADOPT(VMI_SET_INTERRUPT_MASK, pv_irq_ops.restore_fl),
  ADOPT(VMI_HALT, pv_irq_ops.safe_halt),
  ADOPT(VMI_APIC_WRITE, pv_apic_ops.apic_write),
  ADOPT(VMI_APIC_READ, pv_apic_ops.apic_read),
  ADOPT(VMI_SET_LAZY_MODE, pv_misc_ops.set_lazy_mode),
  ADOPT(VMI_GET_CR2, pv_mmu_ops.read_cr2),
  ADOPT(VMI_GET_CR3, pv_mmu_ops.read_cr3),
  ADOPT(VMI_SET_CR3, pv_mmu_ops.write_cr3),
  ADOPT(VMI_INVAL_PAGE, pv_mmu_ops.flush_tlb_single),
  ADOPT(VMI_SHUTDOWN, end_machine),
  ADOPT(VMI_CPUID, vmi.cpuid),
  ADOPT(VMI_SET_TR, vmi.set_tr),
  ADOPT(VMI_UPDATE_KERNEL_STACK, vmi.update_kernel_stack),
  ADOPT(VMI_SET_INITIAL_AP_STATE, vmi.set_initial_ap_state),
};

void vmi_detect(void) {
  rom = find_rom();
  if (!rom) return;
  u32 (*initialise)(void) = (u32(*)(void))(word)rom->initialise;
  if (initialise() != 0) return;
  pv_info.name = "VMI";
  /* The ROM may have put the kernel into another ring. */
  asm volatile("mov %%cs, %0" : "=r"(pv_info.kernel_rpl));
  pv_info.kernel_rpl &= 3;
  adopt(adoptions, COUNT(adoptions));
  if (vmi.cpuid) pv_cpu_ops.cpuid = vmi_cpuid;
  if (vmi.set_tr) pv_cpu_ops.load_tr_desc = vmi_load_tr_desc;
  if (vmi.update_kernel_stack) pv_cpu_ops.load_sp0 = vmi_load_sp0;
  if (vmi.set_initial_ap_state) pv_apic_ops.startup_ipi_hook = vmi_startup_ipi_hook;
  vmi_install_mmu();
  vmi_install_time();
}
