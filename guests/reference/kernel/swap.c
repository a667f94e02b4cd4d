#include "cpu.h"
#include "memory.h"

/* Swap: pages of programs that are in no table, found through the reverse map and put where there is room for contents. */
#define SLOT_SHIFT 12

static u8 slots[SWAP_SLOTS][PAGE_SIZE];
static u32 slot_references[SWAP_SLOTS];
static u32 hand;

/* An entry that is not present names a slot; 0 is no entry at all. */
static u32 slot_of(entry_bits entry) { return (u32)(entry >> SLOT_SHIFT) - 1; }
const void *slot_contents(entry_bits entry) { return slots[slot_of(entry)]; }
void share_slot(entry_bits entry) { slot_references[slot_of(entry)]++; }
void drop_slot(entry_bits entry) { slot_references[slot_of(entry)]--; }

static u32 free_slot(void) {
  for (u32 slot = 0; slot < SWAP_SLOTS; slot++) {
    if (slot_references[slot] == 0) return slot;
  }
  return SWAP_SLOTS;
}

/* A page that some program has used since the hand last came by has a second chance. */
static u32 was_used(struct page *page) {
  u32 used = 0;
  for (struct mapping *mapping = page->mappings; mapping; mapping = mapping->next) {
    if (test_and_clear_young(mapping->mm, mapping->address, find_entry(mapping->mm, mapping->address))) {
      used = 1;
      flush_page(mapping->mm, mapping->address);
    }
  }
  return used;
}

static void write_out(void *contents, struct page *page, u32 slot) {
  entry_bits entry = (entry_bits)(slot + 1) << SLOT_SHIFT;
  while (page->mappings) {
    struct mapping mapping = *page->mappings;
    pte_entry *pointer = find_entry(mapping.mm, mapping.address);
    get_and_clear(mapping.mm, mapping.address, pointer);
    flush_page(mapping.mm, mapping.address);
    set_pte_at(mapping.mm, mapping.address, pointer, make_pte(entry));
    slot_references[slot]++;
    remove_mapping(page, mapping.mm, mapping.address);
    free_page(contents);
  }
  __builtin_memcpy(slots[slot], contents, PAGE_SIZE);
}

/* Puts that many pages to swap, or fewer; how many it was. */
u32 swap_out(u32 count) {
  u32 done = 0;
  for (u32 looked = 0; looked < 2 * POOL_PAGES && done < count; looked++) {
    void *contents = pool[hand];
    struct page *page = page_of(contents);
    hand = (hand + 1) % POOL_PAGES;
    if (!page->mappings || was_used(page)) continue;
    u32 slot = free_slot();
    if (slot == SWAP_SLOTS) return done;
    write_out(contents, page, slot);
    done++;
  }
  return done;
}

static u64 mix(u64 hash, u64 value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15;
  return hash ^ hash >> 29;
}

/* Of all pages that a program has, wherever they are: its number, the address, the contents. */
u64 hash_space(u64 hash, word process, struct memory_descriptor *mm) {
  for (u32 index = 0; index < mm->areas; index++) {
    for (word address = mm->area[index].start; address < mm->area[index].end; address += PAGE_SIZE) {
      pte_entry *pointer = find_entry(mm, address);
      entry_bits entry = pointer ? pte_val(get_pte(pointer)) : 0;
      if (entry == 0) continue;
      const u64 *words = entry & PRESENT ? virtual((word)(entry & FRAME_MASK)) : slot_contents(entry);
      hash = mix(mix(hash, process), address);
      for (u32 word = 0; word < PAGE_SIZE / 8; word++) hash = mix(hash, words[word]);
    }
  }
  return hash;
}
