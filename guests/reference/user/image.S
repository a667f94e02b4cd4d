/* The program's image, which the kernel maps into processes. */
        .section .user_image, "a"
        .incbin USER_IMAGE
