#include "hostile.h"
#include "xen-abi.h"
#include "console.h"
#include "paravirt-tables.h"
#include "start.h"

/*
 * Hypercalls with arguments that are right as often as wrong. They are about an arena of pages that the kernel can do
 * without, most of the time; what they do to the kernel itself ends it, and that is part of the attempt.
 */
#define ARENA_PAGES 24
#define BUFFER_BYTES (5 * PAGE_SIZE)
/* What structures in the buffer point to. */
#define POINTED (buffer + PAGE_SIZE - 512)
/* How seldom something is tried that nearly always ends the kernel. */
#define RARELY 2048
/* Where nothing is mapped. */
#define NOWHERE ((word)PAGE_SIZE)
/* In a count: part of the list is done, and as many as it says where their number is answered. */
#define CONTINUED 0x80000000

/* More than one call carries out: entries of a multicall, bytes of a text. */
#define LONG_LIST (18 * PAGE_SIZE)

static u8 arena[ARENA_PAGES][PAGE_SIZE] ALIGNED(PAGE_SIZE);
static u8 buffer[BUFFER_BYTES] ALIGNED(PAGE_SIZE);
static u8 long_list[LONG_LIST] ALIGNED(PAGE_SIZE);
/* The buffer's first page again, read-only: what is to be answered there cannot be. */
static u8 read_only[PAGE_SIZE] ALIGNED(PAGE_SIZE);
static u64 *const quads = (u64 *)buffer;
static word *const words = (word *)buffer;
static u32 *const halves = (u32 *)buffer;
static word done;

#if LEVELS == 4
#define ENTRY_ARGUMENTS(entry, flags) entry, flags, 0
#else
#define ENTRY_ARGUMENTS(entry, flags) (u32)(entry), (u32)((entry) >> 32), flags
#endif

static struct vcpu_info *own_info(void) { return (struct vcpu_info *)this_cpu()->xen_info; }

static word number(void) { return (word)hostile_number(); }
static u32 chance(u32 one_in) { return hostile_random(one_in) == 0; }

static word arena_page(void) { return (word)arena[hostile_random(ARENA_PAGES)]; }

/* A page of the host's: shared_info, or the first of the grant table, which stands behind the guest's own. */
static word host_frame(void) {
  if (!xen_translates) return xen_start_info->shared_info / PAGE_SIZE;
  return xen_start_info->pages + (chance(2) ? SHARED_INFO_BEHIND : 1);
}

/* Machine frames: of the arena, of any page that the kernel has, of tables in use, or of nothing. */
static word frame(void) {
  switch (hostile_random(12)) {
    case 0:
      return machine_frame((word)hostile_random(POOL_PAGES));
    case 1:
      return machine_frame(page_number(swapper_pg_dir));
    case 2:
      return machine_frame(page_number(gdt_pages[0]));
    case 3:
      return host_frame();
    case 4:
      return number();
    default:
      return machine_frame(page_number((void *)arena_page()));
  }
}

static u64 entry(void) {
  u64 flags = hostile_random(16) ? hostile_random(0x80) & ~0x18UL : hostile_number() & 0xfff;
  if (chance(8)) flags &= ~PRESENT;
  if (chance(16)) flags |= (u64)1 << 63;
  if (chance(64)) flags |= (u64)1 << 52;
  return (u64)frame() * PAGE_SIZE | flags;
}

static word address(void) {
  switch (hostile_random(10)) {
    case 0:
      return number();
    case 1:
      return XEN_MACHINE_TO_PHYSICAL + number() * 8;
    case 2:
      return (word)swapper_pg_dir;
    default:
      return arena_page();
  }
}

/* An argument that is to point at a structure: nearly always it does. */
static word pointer(const void *good) {
  if (chance(32)) return NOWHERE;
  if (hostile_random(16)) return (word)good;
  word offset = (word)good - (word)buffer;
  return offset < PAGE_SIZE && chance(2) ? (word)read_only + offset : address() + (word)hostile_random(9);
}

static word domain(void) { return hostile_random(10) ? XEN_SELF : number(); }

/* A word of a structure of which no more is known. */
static u64 any_word(void) {
  switch (hostile_random(6)) {
    case 0:
      return frame();
    case 1:
      return hostile_random(8) << 32 | hostile_random(8);
    case 2:
      return (u64)XEN_SELF << (hostile_random(2) * 16);
    case 3:
      return (word)POINTED;
    default:
      return hostile_number();
  }
}

static void fill_any(u32 count) {
  for (u32 index = 0; index < count; index++) quads[index] = any_word();
}

static word count_of(word sound) {
  word count = hostile_random(20) ? sound : number();
  return chance(32) ? count | CONTINUED : count;
}

/* Where it is to be answered how many of a list were done. */
static word done_pointer(void) { return chance(32) ? NOWHERE : chance(4) ? 0 : pointer(&done); }

/* An entry above the lowest level of the kernel's own tables, as it stands, or but for bits that processors set. */
static u64 *repeated_place, repeated_entry;
static void find_repeated(void) {
  u64 *root = (u64 *)swapper_pg_dir;
  u32 index = (LEVELS == 4 ? 512 : 4) - 1;
  while (index > 0 && !(root[index] & PRESENT)) index--;
  repeated_place = virtual(page_of_machine((word)((root[index] & FRAME_MASK) / PAGE_SIZE)) * PAGE_SIZE);
  for (index = 0; index < 511 && !(*repeated_place & PRESENT); index++) repeated_place++;
  repeated_entry = *repeated_place ^ (hostile_random(2) ? ACCESSED : 0);
}

static void table_updates(void) {
  u32 count = chance(256) ? BUFFER_BYTES / 16 : 1 + (u32)hostile_random(4);
  for (u32 index = 0; index < count; index++) {
    quads[2 * index] = (u64)frame() * PAGE_SIZE + hostile_random(512) * 8 + hostile_random(hostile_random(4) ? 3 : 8);
    quads[2 * index + 1] = hostile_random(6) ? entry() : hostile_number();
    /* Many that are carried out, so that one call does not suffice. */
    if (count > 4) quads[2 * index] = machine_address(arena[0]) | 1, quads[2 * index + 1] = page_number(arena[0]);
  }
  if (chance(16) && !hostile_attempt(find_repeated)) {
    quads[0] = machine_address(repeated_place) | (hostile_random(2) ? MMU_PRESERVE_AD : MMU_NORMAL);
    quads[1] = repeated_entry;
  }
  if (chance(32)) quads[0] = machine_address(swapper_pg_dir) + hostile_random(3) * 8, quads[1] = entry() | (u64)1 << 63;
  hypercall(XEN_MMU_UPDATE, pointer(buffer), count_of(count), done_pointer(), domain());
}

/* Mostly an arena page's own mapping: what may become a table must not be writable anywhere. */
static void mapping_update(void) {
  word page = address();
  u64 value = entry();
  u32 is_own = page >= (word)arena && page < (word)arena + sizeof(arena) && hostile_random(4);
  if (is_own) value = machine_address((void *)(page & -(word)PAGE_SIZE)) | PRESENT | ACCESSED | (hostile_random(3) ? 0 : WRITABLE);
  word flags = hostile_random(8) ? (word)hostile_random(3) | (word)hostile_random(2) << 2 : number();
  if (chance(8)) flags = 1 | ((word)(chance(4) ? address() : (word)POINTED) & -(word)8);
  hypercall(XEN_UPDATE_VA_MAPPING, page, ENTRY_ARGUMENTS(value, flags));
}

static word *table;
static void fill_table(void) {
  u64 *entries = (u64 *)table;
  for (u32 index = 0; index < 4; index++) entries[hostile_random(8)] = chance(3) ? entry() : 0;
  if (chance(3)) fill(table, 0, PAGE_SIZE);
}

static void set_entry(const u64 *place, u64 value) {
  quads[0] = machine_address(place), quads[1] = value;
  hypercall(XEN_MMU_UPDATE, (word)buffer, 1, (word)&done, XEN_SELF);
}

static void pin(u32 command, const void *page) {
  struct mmuext_op *operation = (struct mmuext_op *)buffer;
  *operation = (struct mmuext_op){command, machine_frame(page_number(page)), 0};
  hypercall(XEN_MMUEXT_OP, (word)operation, 1, (word)&done, XEN_SELF);
}

/* Half of an entry, which means that the other half is to follow. */
static void store_half(void) { ((volatile u32 *)table)[hostile_random(8) * 2 + 1] = (u32)number(); }

/* Fills a page as a table, takes the writable mapping away, mostly, and pins it. Stores to tables come here too. */
static void try_table(void) {
  table = (word *)arena_page();
  if (hostile_attempt(fill_table) || chance(4)) return;
  u64 value = machine_address(table) | PRESENT | ACCESSED;
  hypercall(XEN_UPDATE_VA_MAPPING, (word)table, ENTRY_ARGUMENTS(value, 2));
  pin(chance(4) ? MMUEXT_UNPIN : (u32)hostile_random(4), table);
  if (chance(2)) hostile_attempt(store_half);
}

static void clear_table(void) { fill(table, 0, PAGE_SIZE); }

/* Pins an empty page of the arena as a table. NULL when it cannot be emptied. */
static u64 *empty_table(u32 pin_command) {
  table = (word *)arena_page();
  if (hostile_attempt(clear_table)) return NULL;
  hypercall(XEN_UPDATE_VA_MAPPING, (word)table, ENTRY_ARGUMENTS(machine_address(table) | PRESENT | ACCESSED, 2));
  pin(pin_command, table);
  return (u64 *)table;
}

/* Tables that lead to themselves or to each other at their own level, by which a kernel could see them. */
static void try_linear(void) {
  u64 *tables[2];
  u32 level = 1 + (u32)hostile_random(LEVELS - 1);
  for (u32 index = 0; index < 2; index++) {
    tables[index] = empty_table(level);
    if (!tables[index]) return;
  }
  for (u32 step = 0; step < 6; step++) {
    u64 link = machine_address(tables[hostile_random(2)]) | PRESENT | (chance(8) ? WRITABLE : 0);
    set_entry(tables[hostile_random(2)] + hostile_random(3), chance(4) ? 0 : link);
  }
  for (u32 index = 0; index < 2; index++) pin(MMUEXT_UNPIN, tables[index]);
}

/* As no accessor stores: of any size, anywhere, often where tables have entries. */
static void store_oddly(void) {
  u8 *place = (u8 *)arena_page() + hostile_random(chance(2) ? 64 : PAGE_SIZE - 8);
  if (chance(2)) *(volatile u16 *)place = (u16)number();
  else *(volatile u32 *)(chance(2) ? place : (u8 *)((word)place & -(word)4)) = (u32)number();
}
static void poke_table(void) { hostile_attempt(store_oddly); }

/* An LDT of pages that become ones of descriptors when something is loaded from there. */
#define LDT_OF_RING_3 7 /* of a selector: the local table, for programs */
static u32 local_selector;
static void load_local(void) { asm volatile("mov %0, %%es" : : "r"(local_selector)); }

#define LDT_ENTRIES 512
static void set_ldt(word address, word entries) {
  struct mmuext_op *operation = (struct mmuext_op *)buffer;
  *operation = (struct mmuext_op){MMUEXT_SET_LDT, address, entries};
  hypercall(XEN_MMUEXT_OP, (word)operation, 1, (word)&done, XEN_SELF);
}

static void try_ldt(void) {
  word page = arena_page();
  u64 value = machine_address((void *)page) | PRESENT | ACCESSED;
  hypercall(XEN_UPDATE_VA_MAPPING, page, ENTRY_ARGUMENTS(value, 2));
  set_ldt(page, LDT_ENTRIES);
  local_selector = (u32)hostile_random(16) << 3 | LDT_OF_RING_3;
  hostile_attempt(load_local);
  xen_update_descriptor(machine_address((void *)page) + hostile_random(16) * 8, 0xffff, 0x00cff200);
  hostile_attempt(load_local);
  asm volatile("mov %0, %%es" : : "r"(XEN_KERNEL_SS));
  if (chance(2)) return;
  set_ldt(0, 0);
}

static void extended_operation(void) {
  struct mmuext_op *operation = (struct mmuext_op *)buffer;
  u32 command = (u32)hostile_random(22);
  operation->command = command;
  u32 is_about_address = command == MMUEXT_INVALIDATE_LOCAL || command == MMUEXT_INVALIDATE_MULTI || command == MMUEXT_SET_LDT;
  operation->frame_or_address = is_about_address ? address() : frame();
  operation->argument = hostile_random(3) ? (word)hostile_random(16) : pointer(POINTED);
  if (command == MMUEXT_COPY_PAGE) operation->argument = chance(8) ? -number() : frame();
  if (command == 8 || command == 9) operation->argument = pointer(POINTED);
  if (command == MMUEXT_NEW_BASE && hostile_random(4)) operation->frame_or_address = machine_frame(page_number(swapper_pg_dir));
  if (command == MMUEXT_NEW_USER_BASE && chance(3)) operation->frame_or_address = chance(2) ? 0 : -number();
  u32 count = chance(256) ? 1500 : 1;
  for (u32 index = 1; index < count && index < BUFFER_BYTES / sizeof(*operation); index++) operation[index] = (struct mmuext_op){12, 0, 0};
  hypercall(XEN_MMUEXT_OP, pointer(buffer), count_of(count), done_pointer(), domain());
}

static void descriptors(void) {
  if (hostile_random(2)) {
    /* Of no type, a call gate, or data. */
    static const u16 types[] = {0x8000, 0x8c00, 0x9200, 0x9200};
    u64 descriptor = any_word() | (types[hostile_random(COUNT(types))] | hostile_random(4) << 13) << 32;
    xen_update_descriptor((u64)frame() * PAGE_SIZE + hostile_random(514) * 8, (u32)descriptor, chance(2) ? (u32)(descriptor >> 32) : (u32)number());
    return;
  }
  for (u32 index = 0; index < 16; index++) words[index] = hostile_random(4) ? machine_frame(page_number(gdt_pages[1])) : frame();
  words[0] = machine_frame(page_number(gdt_pages[0]));
  hypercall(XEN_SET_GDT, pointer(buffer), hostile_random(4) ? GDT_ENTRIES + (word)hostile_random(600) : number(), 0, 0);
}

struct reservation { word list, count; u32 order, flags; u16 domain; };
struct memory_map { u32 count; word buffer; };

/* A page of the host's gets a number of the guest's; there are some for that behind its memory. */
#define SPACE_GRANT_TABLE 1
#define ROOM_BEHIND 0x200
struct placed_page { u16 domain, size; u32 space; word index, page; };

/* Where there is room for such a page, most of the time. */
static word placed_number(void) {
  if (chance(8)) return number();
  return chance(4) ? page_number((void *)arena_page()) : xen_start_info->pages + ROOM_BEHIND + (word)hostile_random(16);
}

static void memory(void) {
  word command = chance(8) ? MEMORY_ADD_TO_PHYSMAP : (word)hostile_random(13), *list = (word *)POINTED;
  for (u32 index = 0; index < 4; index++) list[index] = hostile_random(3) ? frame() : number();
  /* Pages of the pool's end that the kernel will not want, there and back. */
  if (chance(2)) list[0] = command == 6 ? page_number(pool[POOL_PAGES - 1]) : machine_frame(page_number(pool[POOL_PAGES - 1]));
  u32 is_long = chance(64);
  *(struct reservation *)buffer = (struct reservation){
    is_long ? (word)(buffer + PAGE_SIZE) : pointer(list), is_long ? 2000 : (word)hostile_random(5), hostile_random(6) ? 0 : (u32)number(), 0,
    hostile_random(6) ? XEN_SELF : (u16)number()};
  if (command == 9) *(struct memory_map *)buffer = (struct memory_map){(u32)hostile_random(3), pointer(POINTED)};
  if (command == 7) {
    *(struct placed_page *)buffer = (struct placed_page){
      chance(8) ? (u16)number() : XEN_SELF, 0, chance(8) ? (u32)hostile_random(4) : SPACE_GRANT_TABLE,
      chance(4) ? number() : (word)hostile_random(4), placed_number()};
  }
  if (chance(16)) command = number();
  hypercall(12, command, pointer(buffer), 0, 0);
  /* Where it stands already. */
  if (command == 7 && chance(4)) hypercall(12, command, (word)buffer, 0, 0);
}

/* Shared_info is to move while the host has something in it. */
static void move_held(void) {
  if (hostile_random(64)) return;
  quads[0] = xen_start_info->pages + SHARED_INFO_BEHIND, halves[2] = PAGE_SIZE / 2, halves[3] = 0;
  hypercall(XEN_VCPU_OP, VCPU_REGISTER_INFO, 1, (word)buffer, 0);
  *(struct placed_page *)buffer = (struct placed_page){XEN_SELF, 0, SPACE_SHARED_INFO, 0, placed_number()};
  hypercall(XEN_MEMORY_OP, MEMORY_ADD_TO_PHYSMAP, (word)buffer, 0, 0);
}

/* Gives a page back while the host still takes a table apart, which is more than one call does. */
static void interrupt_unpin(void) {
  u64 *unpinned = empty_table(MMUEXT_PIN_L1);
  if (!unpinned) return;
  word *list = (word *)POINTED;
  *list = machine_frame(page_number(pool[POOL_PAGES - 1]));
  pin(MMUEXT_UNPIN, unpinned);
  *(struct reservation *)buffer = (struct reservation){(word)list, 1, 0, 0, XEN_SELF};
  hypercall(XEN_MEMORY_OP, 1, (word)buffer, 0, 0);
}

/* More pages than one call gives back, of the pool's end; then as many again, and more than there are. */
#define BALLOON_PAGES 600
#define MOST_PAGES 2000

static void balloon(void) {
  if (hostile_random(RARELY / 16)) return;
  word *list = (word *)long_list;
  struct reservation *reservation = (struct reservation *)buffer;
  for (u32 index = 0; index < BALLOON_PAGES; index++) {
    void *page = pool[POOL_PAGES - 1 - index];
    if (!xen_translates) hypercall(XEN_UPDATE_VA_MAPPING, (word)page, ENTRY_ARGUMENTS((u64)0, 0));
    list[index] = machine_frame(page_number(page));
  }
  *reservation = (struct reservation){(word)list, BALLOON_PAGES, 0, 0, XEN_SELF};
  hypercall(XEN_MEMORY_OP, 1, (word)buffer, 0, 0);
  for (u32 index = 0; index < MOST_PAGES; index++) list[index] = page_number(pool[POOL_PAGES - 1]) - index;
  *reservation = (struct reservation){(word)list, chance(4) ? BALLOON_PAGES : MOST_PAGES, 0, 0, XEN_SELF};
  hypercall(XEN_MEMORY_OP, 6, (word)buffer, 0, 0);
}

#define EVENT_STATUS 5

static void events(void) {
  halves[0] = hostile_random(3) ? (u32)hostile_random(12) : (u32)any_word();
  halves[1] = hostile_random(3) ? (u32)hostile_random(12) : (u32)any_word();
  for (u32 index = 2; index < 6; index++) halves[index] = (u32)any_word();
  word command = chance(8) ? EVENT_STATUS : (word)hostile_random(15);
  if (chance(4)) halves[0] = XEN_SELF;
  if (chance(4)) halves[0] = XEN_SELF | XEN_SELF << 16;
  if (command == 10 && hostile_random(8)) halves[0] = (u32)hostile_random(2);
  hypercall(XEN_EVENT_CHANNEL_OP, command, pointer(buffer), 0, 0);
}

static void event_call(word command) { hypercall(XEN_EVENT_CHANNEL_OP, command, (word)buffer, 0, 0); }
static void with_port(word command, u32 port) { halves[0] = port, halves[1] = 0, event_call(command); }

/* Ports that lead to each other, or to a processor, as they are used from their beginning to their end. */
static void connect(void) {
  halves[0] = XEN_SELF | XEN_SELF << 16;
  event_call(6);
  u32 first = halves[1];
  halves[0] = XEN_SELF, halves[1] = first;
  event_call(0);
  u32 second = halves[2];
  halves[0] = 0;
  event_call(7);
  u32 to_processor = halves[1];
  u32 ports[] = {first, second, to_processor};
  struct vcpu_info *info = own_info();
  for (u32 step = 0; step < 12; step++) {
    /* As if the processor had been told of something else already. */
    if (chance(4)) info->selector = 0, info->pending = 1, xen_shared_info->pending[0] = 0;
    static const u8 commands[] = {4, 4, 9, 9, 8, 3};
    word command = commands[hostile_random(chance(4) ? COUNT(commands) : 4)];
    u32 port = ports[hostile_random(COUNT(ports))];
    if (chance(4)) halves[0] = XEN_SELF, halves[1] = port, event_call(EVENT_STATUS);
    with_port(command, port);
  }
  for (u32 index = 0; index < COUNT(ports); index++) with_port(3, ports[index]);
}

#define MOST_PORTS (WORD_BITS * WORD_BITS)

/* Until there are no more ports, by calls in batches, and then each call that would need one. Some guests go on without. */
static void exhaust_ports(void) {
  struct multicall *calls = (struct multicall *)long_list;
  halves[0] = XEN_SELF | XEN_SELF << 16;
  for (u32 made = 0; made < MOST_PORTS; made += LONG_LIST / sizeof(*calls)) {
    for (u32 index = 0; index < LONG_LIST / sizeof(*calls); index++)
      calls[index] = (struct multicall){XEN_EVENT_CHANNEL_OP, 0, {6, (word)buffer}};
    hypercall(XEN_MULTICALL, (word)calls, LONG_LIST / sizeof(*calls), 0, 0);
  }
  u32 last = MOST_PORTS - 1;
  halves[0] = XEN_SELF, halves[1] = last, event_call(0);
  halves[0] = 1, halves[1] = 0, event_call(1);
  halves[0] = 0, event_call(7);
  if (chance(2)) with_port(10, XEN_SELF);
}

struct grant_entry { u16 flags, domain; u32 frame; };

struct grant_setup { u16 domain; u32 frames; u16 status; word list; };

/* The first frame of the grant table in place of an arena page; NULL when it cannot be mapped. */
static struct grant_entry *map_grants(void) {
  word page = (word)arena[ARENA_PAGES - 1], *list = (word *)POINTED;
  *(struct grant_setup *)buffer = (struct grant_setup){XEN_SELF, 1, 0, (word)list};
  hypercall(20, 2, (word)buffer, 1, 0);
  u64 value = (u64)list[0] * PAGE_SIZE | PRESENT | WRITABLE | ACCESSED | DIRTY;
  return hypercall(XEN_UPDATE_VA_MAPPING, page, ENTRY_ARGUMENTS(value, 2)) ? NULL : (struct grant_entry *)page;
}

static void unmap_grants(struct grant_entry *entries) {
  u64 own = machine_address(entries) | PRESENT | WRITABLE | ACCESSED | DIRTY;
  hypercall(XEN_UPDATE_VA_MAPPING, (word)entries, ENTRY_ARGUMENTS(own, 2));
}

/* Copies by references that the guest gives itself. */
static void use_grants(void) {
  struct grant_entry *entries = map_grants();
  if (!entries) return;
  for (u32 index = 8; index < 16; index++)
    entries[index] = (struct grant_entry){(u16)(chance(8) ? number() : 1 | hostile_random(2) << 2),
                                          (u16)(chance(4) ? number() : chance(2) ? 1 : XEN_SELF), (u32)frame()};
  for (u32 times = 0; times < 4; times++) {
    u16 *ends = (u16 *)buffer, *tail = ends + 2 * sizeof(word);
    for (u32 end = 0; end < 2; end++) {
      words[end * 2] = 8 + (word)hostile_random(8), words[end * 2 + 1] = 0;
      ends[end * sizeof(word) + sizeof(word) / 2] = XEN_SELF;
    }
    tail[0] = 64, tail[1] = (u16)(1 + hostile_random(3)), tail[2] = 0;
    if (!(tail[1] & 1)) words[0] = machine_frame(page_number(buffer));
    if (!(tail[1] & 2)) words[2] = machine_frame(page_number(long_list));
    hypercall(20, 5, (word)buffer, 1, 0);
  }
  unmap_grants(entries);
}

/*
 * The host's disk. The two ends agree through XenStore, a page with a ring for each direction; the guest's names a page
 * that it grants and a port that it has opened for the host, and leaves by saying so, sometimes with that closed.
 */
#define STORE_WRITE 11
#define DISK "device/vbd/51712/"
#define DISK_REFERENCE 2
#define HOST_DOMAIN 0
enum { BUS_INITIALISING = 1, BUS_INITIALISED = 3, BUS_CLOSED = 6 };

struct store_page {
  u8 requests[1024], replies[1024];
  volatile u32 requests_consumed, requests_produced, replies_consumed, replies_produced;
};
static struct store_page *store;
static u8 disk_ring[PAGE_SIZE] ALIGNED(PAGE_SIZE);

static u32 length_of(const char *text) {
  u32 length = 0;
  while (text[length]) length++;
  return length;
}

static void request_bytes(const void *bytes, u32 count) {
  for (u32 index = 0; index < count; index++)
    store->requests[store->requests_produced++ % sizeof(store->requests)] = ((const u8 *)bytes)[index];
}

/* Says something of the disk's; the host is not told yet. */
static void say(const char *name, const char *value) {
  u32 header[] = {STORE_WRITE, 0, 0, sizeof(DISK) + length_of(name) + length_of(value)};
  request_bytes(header, sizeof(header));
  request_bytes(DISK, sizeof(DISK) - 1);
  request_bytes(name, length_of(name) + 1);
  request_bytes(value, length_of(value));
}

static void say_number(const char *name, u32 value) {
  char digits[11], *first = digits + sizeof(digits) - 1;
  *first = 0;
  do *--first = (char)('0' + value % 10); while (value /= 10);
  say(name, first);
}

/* The host reads it before the next turn, and follows before the one after that. */
static void become(u32 state) {
  say_number("state", state);
  with_port(EVENT_SEND, xen_start_info->store_port);
  for (u32 turns = 0; turns < 3; turns++) hypercall(XEN_SCHED_OP, 0, 0, 0, 0);
  store->replies_consumed = store->replies_produced;
}

static void use_disk(void) {
  if (hostile_random(8)) return;
  struct grant_entry *entries = map_grants();
  if (!entries) return;
  entries[DISK_REFERENCE] = (struct grant_entry){1, HOST_DOMAIN, (u32)machine_frame(page_number(disk_ring))};
  unmap_grants(entries);
  halves[0] = XEN_SELF | (chance(4) ? XEN_SELF : HOST_DOMAIN) << 16;
  event_call(6);
  u32 port = halves[1];
  become(BUS_INITIALISING);
  say_number("ring-ref", chance(8) ? (u32)number() : DISK_REFERENCE);
  say_number("event-channel", chance(4) ? (u32)number() : port);
  say("protocol", chance(16) ? "" : WORD_BITS == 64 ? "x86_64-abi" : "x86_32-abi");
  become(BUS_INITIALISED);
  if (chance(2)) with_port(EVENT_SEND, port);
  if (chance(2)) with_port(3, port);
  become(BUS_CLOSED);
  with_port(3, port);
}

static void grants(void) {
  fill_any(16);
  word command = (word)hostile_random(14);
  halves[0] = hostile_random(4) ? XEN_SELF : (u32)number();
  halves[1] = (u32)hostile_random(4);
  if (command == 2) *(struct grant_setup *)buffer = (struct grant_setup){(u16)halves[0], chance(8) ? (u32)number() : (u32)hostile_random(12), 0, pointer(POINTED)};
  /* Copies: two ends, each a reference or a frame, with a domain and an offset; length and flags. */
  if (command == 5) {
    u16 *ends = (u16 *)buffer;
    for (u32 end = 0; end < 2; end++) {
      u16 *own = ends + end * (sizeof(word) == 8 ? 8 : 4);
      if (sizeof(word) == 8) words[end * 2] = chance(2) ? frame() : (word)hostile_random(16);
      else words[end * 2] = chance(2) ? frame() : (word)hostile_random(16);
      own[sizeof(word) / 2] = hostile_random(8) ? XEN_SELF : (u16)number();
      own[sizeof(word) / 2 + 1] = (u16)(hostile_random(8) ? hostile_random(PAGE_SIZE) : hostile_number());
    }
    u16 *tail = ends + (sizeof(word) == 8 ? 16 : 8);
    tail[0] = (u16)(hostile_random(8) ? hostile_random(256) : hostile_number());
    tail[1] = (u16)hostile_random(4);
  }
  if (command == 8) halves[0] = (u32)hostile_random(3);
  hypercall(20, command, pointer(buffer), hostile_random(8) ? (word)hostile_random(3) : number(), 0);
}

/* What another processor does: it waits. */
static u8 other_stack[KERNEL_STACK_SIZE] ALIGNED(16);
static void wait_for_ever(void) { for (;;) hypercall(XEN_SCHED_OP, SCHED_BLOCK, 0, 0, 0); }

static struct vcpu_context sound_context;

static void prepare_other(void) {
  const word stack = (word)other_stack + sizeof(other_stack);
  struct vcpu_context *context = &sound_context;
  cpus[1].number = 1;
  xen_fill_context(context);
  xen_describe_cpu(context, &cpus[1], stack);
  context->flags = CONTEXT_IN_KERNEL;
  context->gdt_frames[0] = machine_frame(page_number(gdt_pages[1]));
  context->gdt_entries = GDT_ENTRIES;
  context->kernel_ss = XEN_KERNEL_SS;
  context->kernel_sp = stack;
#if LEVELS == 4
  context->rip = (word)wait_for_ever;
#else
  context->ip = (word)wait_for_ever;
#endif
}

#define MOST_GDT_ENTRIES (14 * 512)

static void describe_other(void) {
  struct vcpu_context *context = copy(buffer, &sound_context, sizeof(sound_context));
  if (chance(32)) context->flags = (u32)hostile_random(32);
  switch (hostile_random(9)) {
    case 0: context->gdt_entries = chance(2) ? MOST_GDT_ENTRIES + 1 : number(); break;
    case 1: context->gdt_frames[0] = frame(); break;
    case 2: context->control[3] = (u64)frame() * PAGE_SIZE; break;
    case 3: context->control[1] = (u64)frame() * PAGE_SIZE; break;
    case 4: context->ldt_base = address(); break;
    case 5: context->ldt_entries = number(); break;
    case 6: words[hostile_random(sizeof(*context) / sizeof(word))] = number(); break;
    case 7: context->cs = XEN_USER_CS, context->ss = XEN_USER_SS; break;
  }
}

static void processors(void) {
  word operation = chance(16) ? number() : chance(16) ? VCPU_INITIALISE : (word)hostile_random(14);
  word target = chance(4) ? (word)hostile_random(4) : operation <= 2 || operation == 11 ? 1 : 0;
  if (operation == 2 && target == 0 && hostile_random(RARELY / 16)) return;
  fill_any(8);
  quads[0] = hostile_number() * 100000;
  if (operation == 5 || operation == 13) words[0] = chance(3) ? (word)arena_page() : chance(3) ? 0 : (word)POINTED;
  if (operation == VCPU_INITIALISE && hostile_random(8)) describe_other();
  if (operation == VCPU_REGISTER_INFO) {
    target = (word)hostile_random(2);
    quads[0] = chance(4) ? host_frame() : frame(), halves[2] = (u32)hostile_random(9) * 512, halves[3] = chance(8);
  }
  hypercall(XEN_VCPU_OP, operation, target, pointer(buffer), 0);
}

#define SCHED_POLL 3
#define SHUTDOWN_SUSPEND 2
/* The first number that is no reason. */
#define SHUTDOWN_REASONS 6
struct poll { word ports; u32 count; u64 timeout; };

/* Seldom one that ends the kernel. */
static u32 shutdown_reason(void) {
  if (chance(RARELY / 16)) return (u32)hostile_random(SHUTDOWN_REASONS);
  return chance(2) ? SHUTDOWN_SUSPEND : (u32)number() | SHUTDOWN_REASONS;
}

static void scheduling(void) {
  word operation = chance(16) ? number() : (word)hostile_random(8);
  fill_any(4);
  if (operation == SCHED_BLOCK && hostile_random(8)) return;
  if (operation == SCHED_BLOCK) xen_set_timer(1);
  if (operation == SCHED_SHUTDOWN) {
    halves[0] = shutdown_reason();
    hypercall(XEN_SCHED_OP, operation, chance(4) ? NOWHERE : (word)buffer, 0, 0);
    return;
  }
  struct vcpu_info *info = own_info();
  if (operation == SCHED_POLL) {
    /* Something else may be there to be told at once. */
    if (chance(8)) info->pending = 1, info->mask = 0;
    for (u32 index = 0; index < 4; index++) ((u32 *)POINTED)[index] = chance(8) ? (u32)number() : 1 + (u32)hostile_random(6);
    *(struct poll *)buffer = (struct poll){pointer(POINTED), chance(8) ? (u32)number() : (u32)hostile_random(3), 1 + hostile_random(1000)};
  }
  if (operation == 6) halves[0] = (u32)hostile_random(4), halves[1] = hostile_random(4) ? 1000000 : 0;
  hypercall(XEN_SCHED_OP, operation, pointer(buffer), 0, 0);
  info->mask = 1;
}

static void version(void) {
  halves[0] = (u32)hostile_random(2);
  hypercall(XEN_VERSION, (word)hostile_random(13), hostile_random(3) ? pointer(buffer) : 0, 0, 0);
}

/* Some of what a kernel is helped with is a feature from then on. */
static void assists(void) {
  hypercall(XEN_VM_ASSIST, (word)hostile_random(3), hostile_random(2) ? (word)hostile_random(6) : number(), 0, 0);
  halves[0] = 0;
  if (chance(2)) hypercall(XEN_VERSION, VERSION_FEATURES, pointer(buffer), 0, 0);
}

static void processor_state(void) {
  switch (hostile_random(5)) {
    case 0:
      hypercall(XEN_STACK_SWITCH, number(), address(), 0, 0);
      break;
    case 1:
      hypercall(5, (word)hostile_random(2), 0, 0, 0);
      break;
    case 2:
      hypercall(8, (word)hostile_random(10), hostile_random(2) ? 0 : number(), 0, 0);
      hypercall(8, 7, 0, 0, 0);
      break;
    case 3:
      hypercall(9, chance(8) ? number() : (word)hostile_random(10), 0, 0, 0);
      break;
    default:
      hypercall(25, (word)hostile_random(6), hostile_random(2) ? address() : number(), 0, 0);
      set_this_cpu(&cpus[0]);
  }
}

static void ports(void) {
  halves[0] = (u32)hostile_random(6);
  hypercall(33, hostile_random(2) ? 6 + (word)hostile_random(2) : (word)hostile_random(30), pointer(buffer), 0, 0);
}

struct callback { u16 type, flags; struct callback_address address; };

/* Types 0 and 1 keep their handlers: interrupts stay off, but the host may deliver what it likes. */
static void callbacks(void) {
  struct callback *callback = (struct callback *)buffer;
  fill_any(3);
  u16 type = chance(8) ? (u16)hostile_random(2) : (u16)(2 + hostile_random(8));
  callback->type = type;
  callback->flags = (u16)hostile_random(2);
  word command = (word)hostile_random(3);
  callback->address.address = chance(2) ? number() : type == 0 ? (word)xen_event_entry() : (word)xen_failsafe_entry;
  if (type < 2 && command == 0) callback->address = (struct callback_address)CALLBACK_ADDRESS(type == 0 ? xen_event_entry() : xen_failsafe_entry);
  hypercall(XEN_CALLBACK_OP, command, pointer(buffer), 0, 0);
}

static void all_callbacks(void) {
  if (hostile_random(RARELY / 32)) return;
#if LEVELS == 4
  u64 last = chance(2) ? (u64)1 << 50 : 0;
  hypercall(4, (word)xen_event_entry(), (word)xen_failsafe_entry, last, 0);
#else
  hypercall(4, XEN_KERNEL_CS, (word)xen_event_entry(), XEN_KERNEL_CS, (word)xen_failsafe_entry);
#endif
}

/* Gates for vectors that nothing uses; too many, and addresses that there are not. */
static void traps(void) {
  struct trap_info *gates = (struct trap_info *)buffer;
  if (hostile_random(16)) return;
  u32 count = chance(4) ? 300 : (u32)hostile_random(8);
  fill(buffer, 0, BUFFER_BYTES);
  for (u32 index = 0; index < count; index++)
    gates[index] = (struct trap_info){(u8)(0x40 + hostile_random(64)), (u8)hostile_random(8), XEN_KERNEL_CS, chance(64) ? number() : (word)traps};
  hypercall(XEN_SET_TRAP_TABLE, pointer(buffer), 0, 0, 0);
}

static void timers(void) { xen_set_timer(hostile_random(3) ? 0 : hostile_number()); }

static void text(void) {
  u32 is_long = chance(64);
  if (is_long) fill(buffer, 0, BUFFER_BYTES);
  hypercall(18, (word)hostile_random(4), is_long ? BUFFER_BYTES : (word)hostile_random(64), pointer(buffer), 0);
  /* So much that the call is made again and again. */
  if (chance(RARELY)) hypercall(18, 0, sizeof(pool) / 2, (word)pool, 0);
}

/*
 * How a kernel leaves an entry: by a frame on its stack, to programs that ask for something at once, to itself, and with
 * selectors that there are not, of which the kernel is told. Where there is no frame, or the kernel itself has no code to
 * go on with, it ends.
 */
#define IRET 23
#define IN_SYSCALL 0x100
#define INTERRUPTS 0x200
#define VIRTUAL_8086 0x20000
#define SENDS_NMI 11
/* How seldom a return is tried that ends the kernel. */
#define ENDING 128
#if LEVELS == 4
struct return_frame { word ax, r11, cx, call, ip, cs, flags, sp, ss; };
#define RETURN "mov %0, %%rsp\n\tsyscall\n\tud2"
/* The host's segment for programs of 32 bits. */
#define OTHER_PROGRAM_CS 0xe023
#else
/* What virtual-8086 mode has beyond that is the data segments. */
struct return_frame { word ax, ip, cs, flags, sp, ss, data[4]; };
#define RETURN "mov %0, %%esp\n\tint $0x82\n\tud2"
#define OTHER_PROGRAM_CS XEN_USER_CS
#endif
/* Words of a frame that stand before nothing: a kernel's part of it, in 32 bits. */
#define WORDS_BEFORE_NOTHING 4

static struct return_frame return_frame;
static word return_stack;
static u8 entry_stack[KERNEL_STACK_SIZE] ALIGNED(16);

static void return_by_frame(void) {
  asm volatile(RETURN : : "r"(return_stack), "a"(IRET) : "memory");
}

static void write_before_nothing(void) {
  return_stack = HOSTILE_END - WORDS_BEFORE_NOTHING * sizeof(word);
  copy((void *)return_stack, &return_frame, WORDS_BEFORE_NOTHING * sizeof(word));
}

/* A program asks for a system call in one of the ways that there are, or does what it may not. */
static void write_program(void) {
  u8 code[] = {0xcd, (u8)(0x40 + hostile_random(64)) /* int */, 0x0f, 0x0b /* ud2 */};
  if (hostile_random(4)) code[0] = 0x0f, code[1] = chance(2) ? 0x05 /* syscall */ : 0x34 /* sysenter */;
  copy((void *)HOSTILE_BASE, code, sizeof(code));
}

/* The space with programs, which other attempts leave, and a stack for what comes from there. */
static void prepare_return(void) {
  struct mmuext_op *operation = (struct mmuext_op *)buffer;
  operation[0] = (struct mmuext_op){MMUEXT_NEW_BASE, machine_frame(page_number(hostile_mm->pgd)), 0};
  hypercall(XEN_MMUEXT_OP, (word)operation, 1, (word)&done, XEN_SELF);
#if LEVELS == 4
  operation[0] = (struct mmuext_op){MMUEXT_NEW_USER_BASE, machine_frame(page_number(hostile_mm->user_pgd)), 0};
  hypercall(XEN_MMUEXT_OP, (word)operation, 1, (word)&done, XEN_SELF);
#endif
  hypercall(XEN_STACK_SWITCH, XEN_KERNEL_SS, (word)entry_stack + sizeof(entry_stack), 0, 0);
}

static word any_selector(void) { return (word)(hostile_random(0x2000) << 3); }

/* Where a return leads; selectors that cannot be loaded are mostly a program's. */
static word return_code(void) {
  switch (hostile_random(8)) {
    case 0:
      return XEN_FRAME_CS;
    case 1:
      return OTHER_PROGRAM_CS;
    case 2:
    case 3:
      return any_selector() | (chance(ENDING) ? (word)hostile_random(3) : 3);
    default:
      return XEN_USER_CS;
  }
}

/* After which a return ends the kernel: there is no frame, or what follows finds no stack or no handler. */
static void prepare_ending(void) {
  static const struct callback nowhere = {CALLBACK_FAILSAFE, 0, CALLBACK_ADDRESS(0)};
  /* What virtual-8086 mode begins with has no use for the others. */
  u32 choices = return_frame.flags & VIRTUAL_8086 ? 3 : 5;
  switch (hostile_random(choices)) {
    case 0:
      hostile_attempt(write_before_nothing);
      break;
    case 1:
      hypercall(XEN_STACK_SWITCH, XEN_KERNEL_SS, NOWHERE, 0, 0);
      break;
    case 2:
      hypercall(XEN_SET_TRAP_TABLE, 0, 0, 0, 0);
      break;
    case 3:
      return_stack = NOWHERE;
      break;
    default:
      hypercall(XEN_CALLBACK_OP, CALLBACK_REGISTER, (word)&nowhere, 0, 0);
      return_frame.cs = any_selector() | 3;
  }
}

static void try_return(void) {
  if (hostile_random(ENDING)) prepare_return();
  if (hostile_attempt(write_program)) return;
  u32 is_ending = chance(ENDING);
  return_stack = (word)&return_frame;
  return_frame = (struct return_frame){.ip = hostile_random(8) ? HOSTILE_BASE : NOWHERE, .flags = 2, .sp = HOSTILE_END};
  return_frame.cs = return_code();
  return_frame.ss = chance(4) ? any_selector() | 3 : XEN_USER_SS;
#if LEVELS == 4
  return_frame.call = chance(2) ? IN_SYSCALL : 0;
#else
  if (chance(is_ending ? 2 : 8)) return_frame.flags |= VIRTUAL_8086 | (chance(2) ? INTERRUPTS : 0);
#endif
  if (is_ending) prepare_ending();
  hostile_attempt(return_by_frame);
  own_info()->mask = 1;
}

/* An interrupt that cannot be masked, to itself. */
#define CALLBACK_NMI 4
static void send_nmi(void) { hypercall(XEN_VCPU_OP, SENDS_NMI, 0, 0, 0); }
static void try_nmi(void) {
  *(struct callback *)buffer = (struct callback){CALLBACK_NMI, 0, CALLBACK_ADDRESS(xen_failsafe_entry)};
  hypercall(XEN_CALLBACK_OP, CALLBACK_REGISTER, (word)buffer, 0, 0);
  hostile_attempt(send_nmi);
}

/*
 * A linear page table: one of the space with programs, with an entry that leads to itself. Behind that entry, what stands in
 * the place of a table of the lowest level is none; neither an entry there can be changed, nor anything be loaded from there.
 */
#define SLOTS_BEHIND 5
static u64 *looping_table, *looping_place;
static word behind_loop;

static void find_loop(void) {
  u32 level = LEVELS == 4 && chance(2) ? 4 : 2, shift = LEVELS * 9 + 3;
  looping_table = (u64 *)hostile_mm->pgd;
  for (u32 above = LEVELS; above > level; above--, shift -= 9) {
    u64 link = looping_table[(HOSTILE_BASE >> shift) % 512];
    looping_table = virtual(page_of_machine((word)((link & FRAME_MASK) / PAGE_SIZE)) * PAGE_SIZE);
  }
  behind_loop = HOSTILE_BASE + ((word)SLOTS_BEHIND << shift);
  looping_place = looping_table + (behind_loop >> shift) % 512;
  behind_loop += (word)hostile_random(8) * PAGE_SIZE;
}

static void look_behind_loop(void) {
  if (hostile_attempt(find_loop)) return;
  prepare_return();
  set_entry(looping_place, machine_address(looping_table) | PRESENT);
  hypercall(XEN_UPDATE_VA_MAPPING, behind_loop, ENTRY_ARGUMENTS(chance(2) ? 0 : entry(), 0));
  set_ldt(behind_loop, LDT_ENTRIES);
  local_selector = 0 << 3 | LDT_OF_RING_3;
  hostile_attempt(load_local);
  set_ldt(0, 0);
  asm volatile("mov %0, %%es" : : "r"(XEN_KERNEL_SS));
  set_entry(looping_place, 0);
}

/* The host is to write its stubs to a page, by a register that HVM guests ask with. */
#define MSR_HYPERCALL_PAGE 0x40000000
static u64 stubs;
static void write_register(void) {
  asm volatile("wrmsr" : : "c"(MSR_HYPERCALL_PAGE), "a"((u32)stubs), "d"((u32)(stubs >> 32)) : "memory");
}
static void ask_for_stubs(void) {
  stubs = (u64)(chance(4) ? number() : page_number((void *)arena_page())) * PAGE_SIZE;
  hostile_attempt(write_register);
}

static void batches(void) {
  struct multicall *calls = (struct multicall *)buffer;
  u32 count = chance(128) ? 1100 : (u32)hostile_random(5);
  for (u32 index = 0; index < count && index < BUFFER_BYTES / sizeof(*calls); index++) {
    u64 value = entry();
    word flags = (word)hostile_random(3);
    calls[index] = (struct multicall){XEN_UPDATE_VA_MAPPING, 0, {arena_page(), ENTRY_ARGUMENTS(value, flags)}};
    if (chance(3) || count > 4) calls[index] = (struct multicall){hostile_random(4) ? XEN_VERSION : XEN_MULTICALL, 0, {(word)hostile_random(8)}};
    if (chance(16)) calls[index] = (struct multicall){18, 0, {0, BUFFER_BYTES, (word)buffer}};
    if (chance(RARELY * 4)) calls[index] = (struct multicall){IRET, 0, {0}};
    if (chance(RARELY)) calls[index] = (struct multicall){XEN_SCHED_OP, 0, {SCHED_SHUTDOWN, (word)POINTED}};
  }
  *(u32 *)POINTED = (u32)hostile_random(6);
  hypercall(XEN_MULTICALL, pointer(buffer), count, 0, 0);
}

/* More entries than one call carries out. */
static void long_batch(void) {
  if (hostile_random(RARELY / 16)) return;
  struct multicall *calls = (struct multicall *)long_list;
  for (u32 index = 0; index < LONG_LIST / sizeof(*calls); index++) calls[index] = (struct multicall){XEN_VERSION, 0, {0}};
  hypercall(XEN_MULTICALL, (word)calls, LONG_LIST / sizeof(*calls), 0, 0);
}

/* Numbers that nobody has given a meaning, and those that this kind of guest may not use. */
static void unknown(void) {
  static const u8 numbers[] = {6, 7, 11, 16, 19, 22, 27, 28, 31, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 48, 55, 63};
  word call = hostile_random(4) ? numbers[hostile_random(sizeof(numbers))] : 64 + number();
  hypercall((u32)call, number(), pointer(buffer), number(), 0);
}

/* Events come in meanwhile. */
static void let_events_in(void) {
  struct vcpu_info *info = own_info();
  info->mask = 0;
  hypercall(XEN_SCHED_OP, 0, 0, 0, 0);
  info->mask = 1;
}

static void (*const attempts[])(void) = {
  table_updates, table_updates, mapping_update, mapping_update, mapping_update, try_table, try_table, extended_operation,
  extended_operation, descriptors, memory, memory, move_held, balloon, events, grants, processors, processors, scheduling,
  scheduling, version, assists, processor_state, ports, callbacks, all_callbacks, traps, timers, text, try_return, try_return,
  try_nmi, batches, unknown, let_events_in, poke_table, try_linear, interrupt_unpin, try_ldt, connect, use_grants,
  use_disk, long_batch, look_behind_loop, ask_for_stubs,
};

/* How few guests begin by taking all ports. */
#define EXHAUSTING 16

void xen_be_hostile(void) {
  hostile_space();
  prepare_other();
  store = virtual(page_of_machine(xen_start_info->store_frame) * PAGE_SIZE);
  xen_protect(gdt_pages[1], 0);
  u64 value = machine_address(buffer) | PRESENT | ACCESSED;
  hypercall(XEN_UPDATE_VA_MAPPING, (word)read_only, ENTRY_ARGUMENTS(value, 2));
  if (chance(EXHAUSTING)) exhaust_ports();
  for (;;) attempts[hostile_random(COUNT(attempts))]();
}
