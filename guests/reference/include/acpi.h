#pragma once
#include "types.h"

/* What a PC's firmware tells: its processors, and how it is switched off. */
void find_acpi(word rsdp);
void acpi_power_off(void);
extern u32 pc_cpus;
extern u8 pc_apics[];
