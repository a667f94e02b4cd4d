#pragma once
#include "page.h"

/* Pages that are given out, all of them part of the kernel's image, and what is known of each. */
#define POOL_PAGES 1024
#define SWAP_SLOTS 256
#define MOST_AREAS 12

/* Where a page is mapped: the reverse of page tables. */
struct mapping {
  struct mapping *next;
  struct memory_descriptor *mm;
  word address;
};

struct page {
  u32 references;
  struct mapping *mappings;
};

struct area {
  word start, end;
  u32 is_writable;
};

/* An address space of a program. */
struct memory_descriptor {
  pgd_entry *pgd;
  /* Xen: the table that is used while the program runs, and whether both are pinned. */
  pgd_entry *user_pgd;
  u32 is_pinned;
  /* Processors that have it loaded, a bit each. */
  volatile word cpus;
  u32 areas;
  struct area area[MOST_AREAS];
};

extern u8 pool[POOL_PAGES][PAGE_SIZE];
extern pgd_entry *swapper_pg_dir;

void *allocate_page(void);
void free_page(void *page);
struct page *page_of(const void *address);
u32 free_pages(void);
void add_mapping(struct page *page, struct memory_descriptor *mm, word address);
void remove_mapping(struct page *page, struct memory_descriptor *mm, word address);

struct memory_descriptor *create_space(void);
void destroy_space(struct memory_descriptor *mm);
pte_entry *find_entry(struct memory_descriptor *mm, word address);
pte_entry *make_entry(struct memory_descriptor *mm, word address);
void each_table(struct memory_descriptor *mm, void (*visit)(void *table, u32 level));
void clone_pgd_range(pgd_entry *to, pgd_entry *from, u32 start, u32 count);

struct area *find_area(struct memory_descriptor *mm, word address);
word map_area(struct memory_descriptor *mm, word address, word length, u32 is_writable);
void unmap_range(struct memory_descriptor *mm, word start, word end);
void protect_range(struct memory_descriptor *mm, word start, word end, u32 is_writable);
word move_area(struct memory_descriptor *mm, word old, word old_length, word length);
struct memory_descriptor *fork_space(struct memory_descriptor *mm);
void map_program(struct memory_descriptor *mm);
u32 handle_fault(struct memory_descriptor *mm, word address, u32 is_write);

u32 swap_out(u32 count);
void share_slot(entry_bits entry);
void drop_slot(entry_bits entry);
const void *slot_contents(entry_bits entry);

void flush_page(struct memory_descriptor *mm, word address);
void flush_space(struct memory_descriptor *mm);
void switch_space(struct memory_descriptor *from, struct memory_descriptor *to);
void enter_lazy(enum lazy_mode mode);
void leave_lazy(void);

u64 hash_space(u64 hash, word process, struct memory_descriptor *mm);
