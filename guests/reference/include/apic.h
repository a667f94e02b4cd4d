#pragma once
#include "cpu.h"

void end_interrupt(void);
void send_flush_interrupt(struct cpu *target);
void start_pc_cpu(struct cpu *cpu, word stack);
