#include "cpu.h"
#include "memory.h"

/* Pages that come when programs touch them: out of the program's image, out of swap, copies of shared ones, or zeros. */
#define USER_FLAGS (PRESENT | USER | ACCESSED)

extern const u8 user_image[], user_image_end[];

void map_program(struct memory_descriptor *mm) {
  map_area(mm, USER_BASE, (word)(user_image_end - user_image), 1);
  word bytes = USER_STACK_PAGES * PAGE_SIZE;
  map_area(mm, USER_STACK_TOP - bytes, bytes, 1);
}

static void fill_page(u8 *page, word address) {
  word offset = address - USER_BASE;
  word bytes = (word)(user_image_end - user_image);
  if (address < USER_BASE || offset >= bytes) return;
  word count = bytes - offset < PAGE_SIZE ? bytes - offset : PAGE_SIZE;
  __builtin_memcpy(page, user_image + offset, count);
}

static void map_page(struct memory_descriptor *mm, word address, void *page, u32 is_writable) {
  add_mapping(page_of(page), mm, address);
  entry_bits entry = physical(page) | USER_FLAGS | (is_writable ? WRITABLE : 0);
  set_pte_at(mm, address, make_entry(mm, address), make_pte(entry));
}

/* The program has no right to what is there, or shares it. */
static void make_writable(struct memory_descriptor *mm, word address, pte_entry *pointer, entry_bits entry) {
  void *page = virtual((word)(entry & FRAME_MASK));
  if (page_of(page)->references == 1) {
    set_pte_at(mm, address, pointer, make_pte(entry | WRITABLE | DIRTY));
    flush_page(mm, address);
    return;
  }
  void *own = allocate_page();
  /* Another page may have gone to swap for it, this one too. */
  entry = pte_val(get_pte(pointer));
  if (!(entry & PRESENT)) {
    free_page(own);
    return;
  }
  __builtin_memcpy(own, page, PAGE_SIZE);
  remove_mapping(page_of(page), mm, address);
  free_page(page);
  add_mapping(page_of(own), mm, address);
  set_pte_at(mm, address, pointer, make_pte(physical(own) | USER_FLAGS | WRITABLE | DIRTY));
  flush_page(mm, address);
}

/* A page fault of a program. 0 when it had no right to the access. */
u32 handle_fault(struct memory_descriptor *mm, word address, u32 is_write) {
  address &= -(word)PAGE_SIZE;
  struct area *area = find_area(mm, address);
  if (!area || (is_write && !area->is_writable)) return 0;
  pte_entry *pointer = make_entry(mm, address);
  entry_bits entry = pte_val(get_pte(pointer));
  if (entry & PRESENT) {
    if (is_write && !(entry & WRITABLE)) make_writable(mm, address, pointer, entry);
    else flush_page(mm, address);
    return 1;
  }
  u8 *page = allocate_page();
  if (entry) {
    __builtin_memcpy(page, slot_contents(entry), PAGE_SIZE);
    drop_slot(entry);
  } else {
    fill_page(page, address);
  }
  map_page(mm, address, page, area->is_writable);
  return 1;
}
