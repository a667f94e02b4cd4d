#include "acpi.h"
#include "console.h"
#include "page.h"
#include "ports.h"
#include "start.h"

/* Plain hardware: its entries, console, descriptor tables and registers. */
#define SERIAL 0x3f8
#define SERIAL_STATUS (SERIAL + 5)
#define SERIAL_IDLE 0x20

static void serial_write(const char *bytes, u32 count) {
  for (u32 index = 0; index < count; index++) {
    while (!(in_byte(SERIAL_STATUS) & SERIAL_IDLE)) relax();
    out_byte(SERIAL, (u8)bytes[index]);
  }
}

/* A processor that cannot even find its handler of exceptions ends the machine. */
static void native_crash(void) {
  struct table_pointer nothing = {0, 0};
  asm volatile("lidt %0\n\tint3" : : "m"(nothing));
}

static word rsdp;

static void native_begin(const char *arguments) NORETURN;
static void native_begin(const char *arguments) {
  command_line = arguments;
  console_write = serial_write;
  end_machine = acpi_power_off;
  crash_machine = native_crash;
  cpus[0].self = &cpus[0];
  set_this_cpu(&cpus[0]);
  find_acpi(rsdp);
  start_cpus = start_pc_cpus;
#ifdef PARAVIRT
  kvm_detect();
#ifdef VMI
  vmi_detect();
#endif
#endif
  start_kernel();
}

/* boot_params, as Documentation/arch/x86/zero-page.rst has them. */
#define BOOT_RSDP 0x070
#define BOOT_COMMAND_LINE 0x228

void native_start(word boot_parameters) {
  const u8 *parameters = virtual(boot_parameters);
  rsdp = (word) * (const u64 *)(parameters + BOOT_RSDP);
  u32 line = *(const u32 *)(parameters + BOOT_COMMAND_LINE);
  native_begin(line ? virtual(line) : "");
}

/* hvm_start_info (Xen, public/arch-x86/hvm/start_info.h). */
struct pvh_start_info {
  u32 magic, version, flags, modules;
  u64 module_list, command_line, rsdp;
};

void pvh_start(word start_info) {
  const struct pvh_start_info *info = virtual(start_info);
  rsdp = (word)info->rsdp;
  native_begin(info->command_line ? virtual((word)info->command_line) : "");
}

const char *native_memory_setup(void) { return "the image"; }

/* EAX and ECX in; EAX, EBX, ECX, EDX out. */
void native_cpuid(u32 *registers) {
  asm volatile("cpuid" : "+a"(registers[0]), "=b"(registers[1]), "+c"(registers[2]), "=d"(registers[3]));
}

u64 native_read_msr(u32 number) {
  u32 low, high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(number));
  return (u64)high << 32 | low;
}

void native_write_msr(u32 number, u32 low, u32 high) {
  asm volatile("wrmsr" : : "c"(number), "a"(low), "d"(high) : "memory");
}

void native_io_delay(void) { out_byte(0x80, 0); }
