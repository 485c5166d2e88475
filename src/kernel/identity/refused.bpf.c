// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Notes who sends a packet, before the fence looks at it, and takes the note back when the fence let it out.
//
// Two programs at the output hook of a sandbox's namespace. `before` stands in front of the fence and writes a record into the ring of that
// namespace. `behind` sees what the fence accepted and marks its record as done. What is neither done nor overwritten is of a packet that
// was refused, or is on its way.
//
// A ring is never full: the oldest record goes. Each namespace has its own, so none can push out another's.
//
// Compile with: clang -O2 -g -mcpu=v3 -target bpf -fdebug-compilation-dir=. -c refused.bpf.c -o refused.bpf.o && llvm-strip -g refused.bpf.o
// (no headers; offsets in the kernel's structs are relocated when the object is loaded). `cargo test --test identity` holds the object to this text.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static __attribute__((always_inline)) inline
#define NULL ((void *)0)

// linux/bpf.h
enum { HASH = 1, ARRAY = 2, LRU_HASH = 9 };
#define F_NO_PREALLOC 1
#define F_MMAPABLE 1024

static void *(*map_lookup)(const void *map, const void *key) = (void *)1;
static long (*map_update)(const void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*map_delete)(const void *map, const void *key) = (void *)3;
static u64 (*current_task)(void) = (void *)35;
static long (*read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static u64 (*boot_ns)(void) = (void *)125;
static long (*loop)(u32 times, void *step, void *context, u64 flags) = (void *)181;

// What is looked at in the kernel.
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common { u32 inum; };
struct net { u64 net_cookie; };
struct net_device { s32 ifindex; };
struct file;
struct socket { struct file *file; };
struct sock_common { u8 skc_state; };
typedef struct { s32 owned; } socket_lock_t;
struct sock {
    struct sock_common __sk_common;
    socket_lock_t sk_lock;
    u16 sk_type;
    u16 sk_protocol;
    struct socket *sk_socket;
    void *sk_user_data;
};
struct inet_connection_sock { u8 icsk_retransmits; };
struct sk_buff {
    struct sock *sk;
    u32 len;
    u16 network_header;
    unsigned char *head;
};
struct nf_hook_state {
    u8 pf;
    struct net_device *out;
    struct net *net;
};

struct super_block { u32 s_dev; };
struct inode { struct super_block *i_sb; unsigned long i_ino; u32 i_nlink; };
struct qstr { const unsigned char *name; };
struct hlist_bl_node { struct hlist_bl_node **pprev; };
struct dentry { struct hlist_bl_node d_hash; struct dentry *d_parent; struct qstr d_name; struct inode *d_inode; };
struct vfsmount { struct dentry *mnt_root; };
struct mount { struct mount *mnt_parent; struct dentry *mnt_mountpoint; struct vfsmount mnt; };
struct path { struct vfsmount *mnt; struct dentry *dentry; };
struct file { struct path f_path; struct inode *f_inode; };
struct mm_struct { struct file *exe_file; unsigned long arg_start, arg_end; };

struct pid_namespace { struct ns_common ns; };
struct upid { s32 nr; struct pid_namespace *ns; };
struct pid { u32 level; struct upid numbers[1]; };
struct kernfs_node { u64 id; };
struct cgroup { struct kernfs_node *kn; };
struct css_set { struct cgroup *dfl_cgrp; };
typedef struct { u32 val; } kuid_t;
typedef struct { u32 val; } kgid_t;
struct cred { kuid_t euid; kgid_t egid; };
struct nsproxy { struct net *net_ns; };
struct task_struct {
    u32 flags;
    struct mm_struct *mm;
    s32 pid;
    s32 tgid;
    struct task_struct *real_parent;
    struct task_struct *group_leader;
    struct pid *thread_pid;
    u64 start_boottime;
    const struct cred *cred;
    char comm[16];
    struct nsproxy *nsproxy;
    struct css_set *cgroups;
};

#pragma clang attribute pop

// Not relocated: the verifier takes these two at fixed offsets alone.
struct bpf_nf_ctx {
    const struct nf_hook_state *state;
    struct sk_buff *skb;
};

#define FIELD(type, field) __builtin_preserve_field_info(((type *)0)->field, 0)
#define READ(to, pointer, field) read_kernel(&(to), sizeof(to), (const char *)(pointer) + FIELD(typeof(*(pointer)), field))

#define PF_KTHREAD 0x00200000
#define PF_IO_WORKER 0x00000010
#define LOOPBACK 1
#define TCP_SYN_SENT 2
#define SOCK_DGRAM 2
#define SOCK_RAW 3
#define TCP 6
#define UDP 17
#define NF_ACCEPT 1

// Shared with ring.rs.
#define SLOTS 512
#define HEAD 64
#define CHAIN 13
#define PATH 256
#define NAME 128
#define ARGS 256
#define LEVELS 4
#define STEPS 32

enum { DELETED = 1, PATH_CUT = 2, ARGS_CUT = 4, CHAIN_CUT = 8 };

struct one {
    u64 start;
    u64 inode;
    u32 device;
    u32 pid;
    u32 ns_pid;
    u32 _unused;
    char comm[16];
};

struct slot {
    u64 number;
    // Number of the record that the reader has, or need not have: its place is free.
    u64 done;
    // Number of the record whose packet the fence let out.
    u64 accepted;
    u32 busy;
    u32 flags;
    u64 cgroup;
    u32 tid, uid, gid;
    u32 args_len;
    u32 length;
    u8 family;
    u8 chain_len;
    u16 path_len;
    u64 head[HEAD / 8];
    struct one chain[CHAIN];
    // Names from the file up to the root, each with its NUL.
    char path[PATH + NAME];
    char args[ARGS];
    // Number of an older record of the same process, unchanged since, that tells of it; then all but the packet is left as it was here.
    u64 same_as;
};

// The first slot of a ring.
struct ring {
    u64 next;
    u64 lost;
    // Packets of raw sockets, which may look like anybody's.
    u64 raw;
};

struct {
    int (*type)[ARRAY];
    int (*map_flags)[F_MMAPABLE];
    u32 *key;
    struct slot *value;
    int (*max_entries)[1 + SLOTS];
} slots SEC(".maps");

// Cookie of a namespace to the number of its ring.
struct {
    int (*type)[HASH];
    u64 *key;
    u32 *value;
    int (*max_entries)[64];
} rings SEC(".maps");

struct place { u64 number; u32 slot; u32 _unused; };

// Records of packets between the two programs, by address of their buffer.
struct {
    int (*type)[LRU_HASH];
    u64 *key;
    struct place *value;
    int (*max_entries)[4096];
} passing SEC(".maps");

// What a process was when it was last told in full.
struct lately {
    u64 number;
    u64 time;
    u64 start;
    void *mm, *exe, *parent, *cred, *cgroups;
    char comm[16];
};

// By number of the ring and of the process.
struct {
    int (*type)[LRU_HASH];
    u64 *key;
    struct lately *value;
    int (*max_entries)[4096];
} lately SEC(".maps");

struct flow { u64 cookie; u8 addresses[32]; u32 ports; u32 family; };

// UDP flows that the fence let out, and when: the next packet within a second needs no record.
struct {
    int (*type)[LRU_HASH];
    struct flow *key;
    u64 *value;
    int (*max_entries)[8192];
} accepted SEC(".maps");

#define FRESH 1000000000ULL

// For how long a process is not told in full again: what is not compared may change, as the path of what it executes.
#define RECENT 10000000ULL

// Inode of the PID namespace in which the numbers of processes are told.
struct {
    int (*type)[ARRAY];
    u32 *key;
    u32 *value;
    int (*max_entries)[1];
} pidns SEC(".maps");

// Has the verifier know no more of a value than that it is one. It would go through all that comes after once for each that it may be: of what it
// cost to load this, that was nine tenths.
INLINE u32 forget(u32 value) {
    u32 forgotten = 0;
    read_kernel(&forgotten, sizeof(forgotten), &value);
    return forgotten;
}

// A packet on its way out.
struct packet {
    struct sk_buff *skb;
    struct sock *sk;
    struct net *net;
    u64 cookie;
    u32 family;
    u32 length;
};

// Whether `current` sends this packet, and not a timer or an answer that happened to interrupt it.
INLINE int sent_by_current(struct sock *sk) {
    struct socket *socket = NULL;
    struct file *file = NULL;
    void *data = NULL;
    u16 type = 0, protocol = 0;
    u8 state = 0, again = 0;
    s32 owned = 0;
    if (!sk)
        return 0;
    READ(state, sk, __sk_common.skc_state);
    // Those of answers that belong to no whole socket: time-wait and half-open.
    if (state == 6 || state == 12)
        return 0;
    READ(type, sk, sk_type);
    if (type == SOCK_DGRAM || type == SOCK_RAW) {
        // They send from system calls alone, but for the kernel's own and those that carry a tunnel.
        READ(socket, sk, sk_socket);
        READ(file, socket, file);
        READ(data, sk, sk_user_data);
        return file && !data;
    }
    // Timers let a socket be while a system call holds it.
    READ(owned, sk, sk_lock.owned);
    if (!owned)
        return 0;
    READ(protocol, sk, sk_protocol);
    if (protocol == TCP) {
        if (state != TCP_SYN_SENT)
            return 0;
        READ(again, (struct inet_connection_sock *)sk, icsk_retransmits);
        return !again;
    }
    return 1;
}

// Looks at a packet. Says whether it is one to note.
//
// Every pointer is read like any other value. Were it followed as what it is, the verifier would look for its struct, by four names, in all that the
// kernel describes of itself: half a millisecond each time.
INLINE int looked_at(struct bpf_nf_ctx *ctx, struct packet *packet) {
    const struct nf_hook_state *state = ctx->state;
    struct net_device *out = NULL;
    s32 index = 0;
    packet->skb = ctx->skb;
    READ(out, state, out);
    if (out) {
        READ(index, out, ifindex);
        if (index == LOOPBACK)
            return 0;
    }
    READ(packet->sk, packet->skb, sk);
    if (!sent_by_current(packet->sk))
        return 0;
    packet->family = state->pf;
    READ(packet->net, state, net);
    READ(packet->cookie, packet->net, net_cookie);
    READ(packet->length, packet->skb, len);
    return 1;
}

// Whether the packet is of a flow that can be remembered; then `flow` is it.
INLINE int udp_flow(const struct packet *packet, const u64 *words, struct flow *flow) {
    const u8 *head = (const u8 *)words;
    flow->cookie = packet->cookie;
    flow->family = packet->family;
    // Told by the packet and not by the family, or the verifier would know the family from here on, and go through all that comes after twice.
    if (head[0] == 0x45) {
        // No options, no fragment.
        if (head[9] != UDP || (head[6] & 0x3f) || head[7])
            return 0;
        __builtin_memcpy(flow->addresses, head + 12, 8);
        __builtin_memcpy(&flow->ports, head + 20, 4);
        return 1;
    }
    if (head[0] >> 4 != 6 || head[6] != UDP)
        return 0;
    __builtin_memcpy(flow->addresses, head + 8, 32);
    __builtin_memcpy(&flow->ports, head + 40, 4);
    return 1;
}

// Reads the first bytes of a packet, if it is long enough to be one.
INLINE int packet_head(const struct packet *packet, u64 *head) {
    unsigned char *start = NULL;
    u16 offset = 0;
    u32 size = packet->length < HEAD ? packet->length : HEAD;
    asm volatile("" : "+r"(size));
    if (size < 20 || size > HEAD)
        return 0;
    READ(start, packet->skb, head);
    READ(offset, packet->skb, network_header);
    return read_kernel(head, size, start + offset) == 0;
}

// At which depth of PID namespaces this process has its number for the supervisor.
INLINE u32 level_of(struct task_struct *task) {
    struct pid *pid = NULL;
    struct pid_namespace *ns;
    u32 zero = 0, level = 0, inum;
    u32 *wanted = map_lookup(&pidns, &zero);
    if (!wanted || !*wanted)
        return 0;
    READ(pid, task, thread_pid);
    READ(level, pid, level);
    for (u32 at = 0; at < LEVELS; at++) {
        if (at > level)
            break;
        ns = NULL;
        inum = 0;
        read_kernel(&ns, sizeof(ns), (char *)pid + FIELD(struct pid, numbers) + at * 16 + FIELD(struct upid, ns));
        READ(inum, ns, ns.inum);
        if (inum == *wanted)
            return at;
    }
    return 0;
}

INLINE void note_file(struct one *one, struct file *file) {
    struct inode *inode = NULL;
    struct super_block *sb = NULL;
    READ(inode, file, f_inode);
    READ(one->inode, inode, i_ino);
    READ(sb, inode, i_sb);
    READ(one->device, sb, s_dev);
}

INLINE void note_process(struct one *one, struct task_struct *task, u32 told_at) {
    struct pid *pid = NULL;
    u32 level = 0;
    one->inode = 0;
    one->device = 0;
    one->pid = 0;
    one->ns_pid = 0;
    READ(one->start, task, start_boottime);
    READ(one->comm, task, comm);
    READ(pid, task, thread_pid);
    if (pid) {
        char *numbers = (char *)pid + FIELD(struct pid, numbers);
        READ(level, pid, level);
        if (told_at <= level)
            read_kernel(&one->pid, 4, numbers + told_at * 16);
        if (level < 32)
            read_kernel(&one->ns_pid, 4, numbers + level * 16);
    }
}

INLINE struct file *executed(struct mm_struct *mm) {
    struct file *file = NULL;
    if (mm)
        READ(file, mm, exe_file);
    return file;
}

// What goes round is a function that the kernel calls: the verifier looks through that a time or two, and through a loop as often as it may go round.
enum { GO_ON, STOP };

// On the way from a file up to the root.
struct climb {
    struct slot *slot;
    struct dentry *dentry;
    struct mount *mount;
    u32 at;
    u32 arrived;
};

static long climb_step(u32 step, struct climb *climb) {
    struct slot *slot = climb->slot;
    struct dentry *dentry = climb->dentry, *parent = NULL, *root = NULL;
    struct mount *mount = climb->mount, *under = NULL;
    const unsigned char *name = NULL;
    u32 at = climb->at;
    READ(parent, dentry, d_parent);
    READ(root, mount, mnt.mnt_root);
    if (dentry == root || dentry == parent) {
        READ(under, mount, mnt_parent);
        if (under && under != mount && dentry == root) {
            READ(climb->dentry, mount, mnt_mountpoint);
            climb->mount = under;
            return GO_ON;
        }
        // A file that lies in no directory has a name nevertheless.
        if (!at && dentry != root) {
            READ(name, dentry, d_name.name);
            long alone = read_kernel_str(slot->path, NAME, name);
            if (alone > 1 && alone < NAME)
                at = alone;
        }
        slot->path_len = at;
        climb->arrived = 1;
        return STOP;
    }
    if (at > PATH)
        return STOP;
    READ(name, dentry, d_name.name);
    long length = read_kernel_str(slot->path + at, NAME, name);
    if (length <= 1 || length >= NAME)
        return STOP;
    climb->at = at + length;
    climb->dentry = parent;
    return GO_ON;
}

INLINE void note_path(struct slot *slot, struct file *file) {
    struct climb climb = {.slot = slot};
    struct vfsmount *mnt = NULL;
    struct inode *inode = NULL;
    void *pprev = NULL;
    u32 links = 1;
    READ(climb.dentry, file, f_path.dentry);
    READ(mnt, file, f_path.mnt);
    climb.mount = (struct mount *)((char *)mnt - FIELD(struct mount, mnt));
    READ(inode, file, f_inode);
    READ(links, inode, i_nlink);
    READ(pprev, climb.dentry, d_hash.pprev);
    if (!links || !pprev)
        slot->flags |= DELETED;
    loop(STEPS, climb_step, &climb, 0);
    if (!climb.arrived) {
        slot->flags |= PATH_CUT;
        slot->path_len = 0;
    }
}

// On the way from a process to the first of the sandbox.
struct descent {
    struct slot *slot;
    struct task_struct *task;
    struct net *net;
    u32 told_at;
    u32 arrived;
};

static long descent_step(u32 step, struct descent *descent) {
    struct slot *slot = descent->slot;
    struct task_struct *task = NULL, *parent = NULL;
    struct nsproxy *proxy = NULL;
    struct net *theirs = NULL;
    struct mm_struct *mm = NULL;
    u32 index = step + 1;
    if (index >= CHAIN)
        return STOP;
    READ(parent, descent->task, real_parent);
    READ(task, parent, group_leader);
    READ(proxy, task, nsproxy);
    READ(theirs, proxy, net_ns);
    // The sandbox's first process was started by one outside.
    if (!parent || theirs != descent->net) {
        descent->arrived = 1;
        return STOP;
    }
    note_process(&slot->chain[index], task, descent->told_at);
    READ(mm, task, mm);
    struct file *file = executed(mm);
    if (file)
        note_file(&slot->chain[index], file);
    slot->chain_len = index + 1;
    descent->task = task;
    return GO_ON;
}

INLINE void note_ancestors(struct slot *slot, struct task_struct *task, struct net *net, u32 told_at) {
    struct descent descent = {.slot = slot, .task = task, .net = net, .told_at = told_at};
    loop(CHAIN - 1, descent_step, &descent, 0);
    if (!descent.arrived)
        slot->flags |= CHAIN_CUT;
}

INLINE void note_arguments(struct slot *slot, struct mm_struct *mm) {
    unsigned long start = 0, end = 0;
    slot->args_len = 0;
    READ(start, mm, arg_start);
    READ(end, mm, arg_end);
    u64 length = end - start;
    if (end <= start)
        return;
    if (length > ARGS) {
        slot->flags |= ARGS_CUT;
        return;
    }
    u32 size = length;
    asm volatile("" : "+r"(size));
    if (size > ARGS)
        return;
    if (read_user(slot->args, size, (void *)start) == 0)
        slot->args_len = size;
}

INLINE void note(struct slot *slot, const struct packet *packet, struct task_struct *task) {
    struct task_struct *leader = NULL;
    struct mm_struct *mm = NULL;
    const struct cred *cred = NULL;
    struct css_set *css = NULL;
    struct cgroup *cgroup = NULL;
    struct kernfs_node *node = NULL;
    READ(leader, task, group_leader);
    u32 told_at = forget(level_of(leader));
    slot->flags = 0;
    slot->path_len = 0;
    slot->args_len = 0;
    slot->chain_len = 1;
    slot->family = packet->family;
    READ(slot->tid, task, pid);
    slot->same_as = 0;
    READ(cred, task, cred);
    READ(slot->uid, cred, euid);
    READ(slot->gid, cred, egid);
    slot->cgroup = 0;
    READ(css, task, cgroups);
    READ(cgroup, css, dfl_cgrp);
    READ(node, cgroup, kn);
    READ(slot->cgroup, node, id);
    note_process(&slot->chain[0], leader, told_at);
    // The leader may have ended before its threads: then they have the memory.
    READ(mm, task, mm);
    if (!mm)
        READ(mm, leader, mm);
    if (mm) {
        struct file *file = executed(mm);
        if (file) {
            note_file(&slot->chain[0], file);
            note_path(slot, file);
        }
        note_arguments(slot, mm);
    }
    note_ancestors(slot, leader, packet->net, told_at);
}

INLINE void note_lately(struct lately *now, struct task_struct *task) {
    struct task_struct *leader = NULL;
    READ(leader, task, group_leader);
    READ(now->start, leader, start_boottime);
    READ(now->comm, leader, comm);
    READ(now->parent, leader, real_parent);
    READ(now->cred, task, cred);
    READ(now->cgroups, task, cgroups);
    READ(now->mm, task, mm);
    now->exe = NULL;
    if (now->mm)
        READ(now->exe, (struct mm_struct *)now->mm, exe_file);
    now->time = boot_ns();
}

INLINE int unchanged(const struct lately *was, const struct lately *is) {
    return was->start == is->start && was->mm == is->mm && was->exe == is->exe && was->parent == is->parent &&
           was->cred == is->cred && was->cgroups == is->cgroups && *(u64 *)was->comm == *(u64 *)is->comm &&
           *(u64 *)(was->comm + 8) == *(u64 *)(is->comm + 8) && is->time - was->time < RECENT;
}

SEC("socket/before") int before(struct bpf_nf_ctx *ctx) {
    u64 head[HEAD / 8] = {};
    struct packet packet = {};
    // One after the other: a program has 512 bytes of stack, those of what it calls included.
    union {
        struct flow flow;
        struct lately now;
    } last = {};
    u64 *seen;
    u16 type = 0;
    u32 flags = 0, key;

    if (!looked_at(ctx, &packet))
        return NF_ACCEPT;
    u32 *number = map_lookup(&rings, &packet.cookie);
    if (!number || !packet_head(&packet, head))
        return NF_ACCEPT;
    if (udp_flow(&packet, head, &last.flow)) {
        seen = map_lookup(&accepted, &last.flow);
        if (seen && boot_ns() - *seen < FRESH)
            return NF_ACCEPT;
    }
    struct task_struct *task = (struct task_struct *)current_task();
    READ(flags, task, flags);
    // A kernel thread that is nobody's.
    if ((flags & PF_KTHREAD) && !(flags & PF_IO_WORKER))
        return NF_ACCEPT;

    u32 base = *number * (1 + SLOTS);
    struct ring *ring = map_lookup(&slots, &base);
    if (!ring)
        return NF_ACCEPT;
    READ(type, packet.sk, sk_type);
    if (type == SOCK_RAW)
        __sync_fetch_and_add(&ring->raw, 1);
    u64 next = __sync_fetch_and_add(&ring->next, 1);
    key = base + 1 + (next & (SLOTS - 1));
    struct slot *slot = map_lookup(&slots, &key);
    if (!slot)
        return NF_ACCEPT;
    // Whoever was interrupted while it wrote a whole ring ago still writes.
    if (__sync_val_compare_and_swap(&slot->busy, 0, 1) != 0) {
        __sync_fetch_and_add(&ring->lost, 1);
        return NF_ACCEPT;
    }
    u64 old = slot->number;
    if (old && slot->done != old)
        __sync_fetch_and_add(&ring->lost, 1);
    // Readers must see that it changes before it does, and that it is whole after it is: both are full barriers.
    __sync_val_compare_and_swap(&slot->number, old, 0);
    __builtin_memcpy(slot->head, head, HEAD);
    slot->length = packet.length;
    last.now.number = next + 1;
    u32 tgid = 0;
    READ(tgid, task, tgid);
    u64 name = (u64)*number << 32 | tgid;
    note_lately(&last.now, task);
    struct lately *was = map_lookup(&lately, &name);
    // Not much older, so that who reads this record finds the other one.
    if (was && unchanged(was, &last.now) && next - was->number < SLOTS / 2) {
        slot->same_as = was->number;
    } else {
        note(slot, &packet, task);
        map_update(&lately, &name, &last.now, 0);
    }
    __sync_val_compare_and_swap(&slot->number, 0, next + 1);
    __sync_val_compare_and_swap(&slot->busy, 1, 0);

    u64 buffer = (u64)packet.skb;
    struct place place = {.number = next + 1, .slot = key};
    map_update(&passing, &buffer, &place, 0);
    return NF_ACCEPT;
}

SEC("socket/behind") int behind(struct bpf_nf_ctx *ctx) {
    u64 head[HEAD / 8] = {};
    struct packet packet = {};
    struct flow flow = {};
    // What has no record is let by before anything else is looked at.
    u64 buffer = (u64)ctx->skb;
    struct place *place = map_lookup(&passing, &buffer);
    if (!place || !looked_at(ctx, &packet))
        return NF_ACCEPT;
    u64 number = place->number;
    u32 key = place->slot;
    struct slot *slot = map_lookup(&slots, &key);
    if (!slot || slot->number != number)
        return NF_ACCEPT;
    if (!packet_head(&packet, head))
        return NF_ACCEPT;
    // A buffer's address is used again: it must be the same packet.
    for (int at = 0; at < HEAD / 8; at++)
        if (head[at] != slot->head[at])
            return NF_ACCEPT;
    map_delete(&passing, &buffer);
    slot->accepted = number;
    slot->done = number;
    if (udp_flow(&packet, head, &flow)) {
        u64 now = boot_ns();
        map_update(&accepted, &flow, &now, 0);
    }
    return NF_ACCEPT;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
