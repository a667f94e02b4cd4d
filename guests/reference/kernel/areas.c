#include "cpu.h"
#include "memory.h"

/* What programs map: areas of private memory, and the changes of ranges of them. */
static word round_up(word length) { return (length + PAGE_SIZE - 1) & -(word)PAGE_SIZE; }

struct area *find_area(struct memory_descriptor *mm, word address) {
  for (u32 index = 0; index < mm->areas; index++) {
    struct area *area = &mm->area[index];
    if (address >= area->start && address < area->end) return area;
  }
  return NULL;
}

static u32 is_free(struct memory_descriptor *mm, word start, word end) {
  for (u32 index = 0; index < mm->areas; index++) {
    if (start < mm->area[index].end && end > mm->area[index].start) return 0;
  }
  return 1;
}

static void insert(struct memory_descriptor *mm, struct area area) {
  if (mm->areas == MOST_AREAS) panic("too many areas");
  u32 at = mm->areas++;
  for (; at > 0 && mm->area[at - 1].start > area.start; at--) mm->area[at] = mm->area[at - 1];
  mm->area[at] = area;
}

/* At an address, or with 0 at the first that is free. 0 when it cannot be. */
word map_area(struct memory_descriptor *mm, word address, word length, u32 is_writable) {
  word start = address ? address : USER_MAPPINGS;
  length = round_up(length);
  while (!address && !is_free(mm, start, start + length)) start += PAGE_SIZE;
  if (length == 0 || start % PAGE_SIZE || start + length > USER_STACK_TOP) return 0;
  if (!is_free(mm, start, start + length)) return 0;
  insert(mm, (struct area){start, start + length, is_writable});
  return start;
}

/* Splits the area that an address lies inside of. */
static void split(struct memory_descriptor *mm, word address) {
  struct area *area = find_area(mm, address);
  if (!area || area->start == address) return;
  struct area upper = {address, area->end, area->is_writable};
  area->end = address;
  insert(mm, upper);
}

/* Neighbours with the same rights are one area. */
static void merge(struct memory_descriptor *mm) {
  u32 kept = 0;
  for (u32 index = 1; index < mm->areas; index++) {
    struct area area = mm->area[index];
    if (mm->area[kept].end == area.start && mm->area[kept].is_writable == area.is_writable) mm->area[kept].end = area.end;
    else mm->area[++kept] = area;
  }
  mm->areas = kept + 1;
}

static void drop_entry(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  entry_bits entry = pte_val(get_pte(pointer));
  if (entry == 0) return;
  pte_clear(mm, address, pointer);
  if (entry & PRESENT) {
    void *page = virtual((word)(entry & FRAME_MASK));
    remove_mapping(page_of(page), mm, address);
    free_page(page);
  } else {
    drop_slot(entry);
  }
}

/* Pages are freed before their translations are flushed, which is sound because the kernel's lock is held until then. */
void unmap_range(struct memory_descriptor *mm, word start, word end) {
  split(mm, start);
  split(mm, end);
  enter_lazy(LAZY_MMU);
  for (word address = start; address < end; address += PAGE_SIZE) {
    pte_entry *pointer = find_entry(mm, address);
    if (pointer) drop_entry(mm, address, pointer);
  }
  leave_lazy();
  flush_space(mm);
  u32 kept = 0;
  for (u32 index = 0; index < mm->areas; index++) {
    struct area area = mm->area[index];
    if (area.start < start || area.end > end) mm->area[kept++] = area;
  }
  mm->areas = kept;
}

void protect_range(struct memory_descriptor *mm, word start, word end, u32 is_writable) {
  split(mm, start);
  split(mm, end);
  enter_lazy(LAZY_MMU);
  for (word address = start; address < end; address += PAGE_SIZE) {
    struct area *area = find_area(mm, address);
    if (area) area->is_writable = is_writable;
    pte_entry *pointer = find_entry(mm, address);
    if (!pointer || !(pte_val(get_pte(pointer)) & PRESENT)) continue;
    /* A page becomes writable when it is written to: others may have it too. */
    entry_bits entry = pte_val(modify_start(mm, address, pointer));
    modify_commit(mm, address, pointer, make_pte(entry & ~WRITABLE));
  }
  leave_lazy();
  flush_space(mm);
  merge(mm);
}

static void move_entry(struct memory_descriptor *mm, word from, word to) {
  pte_entry *old = find_entry(mm, from);
  if (!old || pte_val(get_pte(old)) == 0) return;
  pte_t entry = get_pte(old);
  entry_bits value = pte_val(entry);
  pte_entry *pointer = find_entry(mm, to);
  pte_clear(mm, from, old);
  set_pte_at(mm, to, pointer, entry);
  if (!(value & PRESENT)) return;
  struct page *page = page_of(virtual((word)(value & FRAME_MASK)));
  remove_mapping(page, mm, from);
  add_mapping(page, mm, to);
}

/* To a place with room for another length. 0 when there is none, and nothing has changed. */
word move_area(struct memory_descriptor *mm, word old, word old_length, word length) {
  split(mm, old);
  split(mm, old + round_up(old_length));
  struct area *area = find_area(mm, old);
  if (!area || area->end != old + round_up(old_length)) return 0;
  word start = map_area(mm, 0, length, area->is_writable);
  if (!start) return 0;
  word common = round_up(old_length < length ? old_length : length);
  for (word offset = 0; offset < common; offset += PAGE_SIZE) make_entry(mm, start + offset);
  enter_lazy(LAZY_MMU);
  for (word offset = 0; offset < common; offset += PAGE_SIZE) move_entry(mm, old + offset, start + offset);
  leave_lazy();
  flush_space(mm);
  unmap_range(mm, old, old + round_up(old_length));
  return start;
}

/* Both sides keep what is there, and lose the right to write it until they do. */
static void share_entry(struct memory_descriptor *mm, struct memory_descriptor *copy, word address) {
  pte_entry *pointer = find_entry(mm, address);
  entry_bits entry = pointer ? pte_val(get_pte(pointer)) : 0;
  if (entry == 0) return;
  if (!(entry & PRESENT)) {
    share_slot(entry);
    set_pte_at(copy, address, find_entry(copy, address), make_pte(entry));
    return;
  }
  struct page *page = page_of(virtual((word)(entry & FRAME_MASK)));
  if (entry & WRITABLE) set_write_protected(mm, address, pointer);
  page->references++;
  add_mapping(page, copy, address);
  set_pte_at(copy, address, find_entry(copy, address), make_pte(entry & ~(WRITABLE | DIRTY)));
}

struct memory_descriptor *fork_space(struct memory_descriptor *mm) {
  struct memory_descriptor *copy = create_space();
  for (u32 index = 0; index < mm->areas; index++) {
    struct area *area = &mm->area[index];
    insert(copy, *area);
    for (word address = area->start; address < area->end; address += PAGE_SIZE) {
      pte_entry *pointer = find_entry(mm, address);
      if (pointer && pte_val(get_pte(pointer)) != 0) make_entry(copy, address);
    }
    enter_lazy(LAZY_MMU);
    for (word address = area->start; address < area->end; address += PAGE_SIZE) share_entry(mm, copy, address);
    leave_lazy();
  }
  flush_space(mm);
  PV_CALL_2(mmu, dup_mmap, mm, copy);
  return copy;
}
