/*
 * What 32-bit kernels of this folder print with, on the port SERIAL. Registers are kept but for ESI, which `print` leaves
 * behind the text.
 */

/* Prints EAX and a space in front. */
print_number:
        push %eax
        push %ecx
        push %edx
        mov %eax, %edx
        mov $' ', %al
        call print_byte
        mov $8, %ecx
        jmp 3f
1:      rol $4, %edx
        dec %ecx
3:      cmp $1, %ecx
        jbe 2f
        test $0xf0000000, %edx
        jz 1b
2:      rol $4, %edx
        mov %dl, %al
        and $15, %al
        add $'0', %al
        cmp $'9', %al
        jbe 4f
        add $'a' - '0' - 10, %al
4:      call print_byte
        dec %ecx
        jnz 2b
        pop %edx
        pop %ecx
        pop %eax
        ret

/* Prints the text at ESI. */
print:  push %eax
1:      lodsb
        test %al, %al
        jz 2f
        call print_byte
        jmp 1b
2:      pop %eax
        ret

print_byte:
        push %edx
        mov $SERIAL, %edx
        out %al, %dx
        pop %edx
        ret
