#include "console.h"
#include "paravirt-tables.h"
#include "site.h"

/* A line for each site: what it is for, where, and its bytes. A kernel without paravirtualization has sites to compare. */
void print_sites(void) {
  for (const struct site *site = sites; site < sites_end; site++) {
    print("site %s.%s %x ", group_of(site->type), operation_names[site->type], site->address);
    for (u32 byte = 0; byte < site->length; byte++) {
      u8 value = ((const u8 *)site->address)[byte];
      print("%x%x", (word)value >> 4, (word)value & 15);
    }
    print("\n");
  }
}
