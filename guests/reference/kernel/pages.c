#include "cpu.h"
#include "memory.h"

/* The pool of pages, and the reverse map of those that programs have. The kernel's lock protects all of it. */
u8 pool[POOL_PAGES][PAGE_SIZE] ALIGNED(PAGE_SIZE);

static struct page pages[POOL_PAGES];
static u32 next_page;

#define MAPPINGS 4096
static struct mapping mapping_pool[MAPPINGS];
static struct mapping *free_mappings;
static u32 used_mappings;

struct page *page_of(const void *address) { return &pages[(word)((const u8 *)address - pool[0]) / PAGE_SIZE]; }

static void *try_page(void) {
  for (u32 tried = 0; tried < POOL_PAGES; tried++) {
    u32 index = next_page;
    next_page = (next_page + 1) % POOL_PAGES;
    if (pages[index].references > 0) continue;
    pages[index].references = 1;
    __builtin_memset(pool[index], 0, PAGE_SIZE);
    return pool[index];
  }
  return NULL;
}

/* A page of zeros. When there is none, some of programs' pages go to swap. */
void *allocate_page(void) {
  void *page = try_page();
  if (!page && swap_out(16) > 0) page = try_page();
  if (!page) panic("no page is free");
  return page;
}

void free_page(void *page) {
  if (page_of(page)->references == 0) panic("page %x is free already", (word)page);
  page_of(page)->references--;
}

u32 free_pages(void) {
  u32 count = 0;
  for (u32 index = 0; index < POOL_PAGES; index++) count += pages[index].references == 0;
  return count;
}

void add_mapping(struct page *page, struct memory_descriptor *mm, word address) {
  struct mapping *mapping = free_mappings;
  if (mapping) free_mappings = mapping->next;
  else if (used_mappings < MAPPINGS) mapping = &mapping_pool[used_mappings++];
  else panic("no entry of the reverse map is free");
  *mapping = (struct mapping){page->mappings, mm, address};
  page->mappings = mapping;
}

void remove_mapping(struct page *page, struct memory_descriptor *mm, word address) {
  for (struct mapping **at = &page->mappings; *at; at = &(*at)->next) {
    struct mapping *mapping = *at;
    if (mapping->mm != mm || mapping->address != address) continue;
    *at = mapping->next;
    mapping->next = free_mappings;
    free_mappings = mapping;
    return;
  }
  panic("page at %x is not in the reverse map", address);
}
