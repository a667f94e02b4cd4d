#include "acpi.h"
#include "console.h"
#include "cpu.h"
#include "page.h"
#include "ports.h"

/* ACPI 6.4, chapter 5: the tables, as far as this kernel needs them. */
#define FADT_DSDT 40
#define FADT_PM1A_CONTROL 64
#define FADT_FLAGS 112
#define FADT_SLEEP_CONTROL 244
#define IN_MEMORY 0
#define HARDWARE_REDUCED (1u << 20)
#define MADT_ENTRIES 44
#define MADT_LOCAL_APIC 0
#define APIC_ENABLED 1
#define SLEEP_ENABLE 0x20
#define PM1_SLEEP_ENABLE 0x2000

struct table {
  char signature[4];
  u32 length;
  u8 more[28];
};

u32 pc_cpus = 1;
u8 pc_apics[MOST_CPUS];
static const u8 *fadt;

static void read_madt(const struct table *madt) {
  const u8 *end = (const u8 *)madt + madt->length;
  u32 found = 0;
  for (const u8 *entry = (const u8 *)madt + MADT_ENTRIES; entry < end && entry[1] > 0; entry += entry[1]) {
    u32 enabled = entry[0] == MADT_LOCAL_APIC && (entry[4] & APIC_ENABLED);
    if (enabled && found < MOST_CPUS) pc_apics[found++] = entry[3];
  }
  if (found > 0) pc_cpus = found;
}

static void read_table(word address) {
  const struct table *table = virtual(address);
  if (same_bytes(table->signature, "APIC", 4)) read_madt(table);
  if (same_bytes(table->signature, "FACP", 4)) fadt = (const u8 *)table;
}

static const u8 *search(word start, word end) {
  for (word address = start; address < end; address += 16) {
    if (same_bytes(virtual(address), "RSD PTR ", 8)) return virtual(address);
  }
  return NULL;
}

void find_acpi(word rsdp) {
  const u8 *pointer = rsdp ? virtual(rsdp) : search(0xe0000, 0x100000);
  if (!pointer) return;
  word extended = pointer[15] >= 2 ? (word) * (const u64 *)(pointer + 24) : 0;
  const struct table *root = virtual(extended ? extended : *(const u32 *)(pointer + 16));
  const u8 *end = (const u8 *)root + root->length;
  for (const u8 *entry = root->more + 28; entry < end; entry += extended ? 8 : 4) {
    read_table(extended ? (word) * (const u64 *)entry : *(const u32 *)entry);
  }
}

/* The first number of the package that \_S5 names: AML of NameOp, name, PackageOp, length, count, numbers. */
static u8 sleep_type(void) {
  const struct table *dsdt = virtual(*(const u32 *)(fadt + FADT_DSDT));
  const u8 *end = (const u8 *)dsdt + dsdt->length - 8;
  for (const u8 *at = (const u8 *)dsdt; at < end; at++) {
    if (!same_bytes(at, "_S5_", 4)) continue;
    const u8 *number = at + 7;
    return *number == 0x0a ? number[1] : *number == 1;
  }
  return 0;
}

static void write_sleep_control(u8 value) {
  const u8 *address_space = fadt + FADT_SLEEP_CONTROL;
  word address = (word) * (const u64 *)(address_space + 4);
  if (*address_space != IN_MEMORY) return out_byte((u16)address, value);
  volatile u8 *page = (volatile u8 *)(word)PV_CALL_ENTRY_2(mmu, set_fixmap, 1, address & -(word)PAGE_SIZE);
  page[address % PAGE_SIZE] = value;
}

void acpi_power_off(void) {
  if (!fadt) return;
  if (*(const u32 *)(fadt + FADT_FLAGS) & HARDWARE_REDUCED) {
    write_sleep_control((u8)(SLEEP_ENABLE | sleep_type() << 2));
  } else {
    out_word((u16) * (const u32 *)(fadt + FADT_PM1A_CONTROL), (u16)(PM1_SLEEP_ENABLE | sleep_type() << 10));
  }
}
