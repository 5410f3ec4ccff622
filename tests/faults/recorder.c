/* A record of everything that is done to the files below RELAY_RECORD_ROOT: loaded into the relay's processes (LD_PRELOAD), it
   writes each change and each sync, in the order in which they began, into a file that all of them and the test have
   mapped (RELAY_RECORD).  `disk.py` tells from it what a power cut leaves.  What it cannot record it counts as a gap. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* tail: where the next entry goes; gaps: what was done and is not recorded; deaf: which syncs are swallowed, see below.
   forgets: a sync of which file of the store is the next to fail, and to forget; failures: how often each of them did;
   dies: whether everybody ends where it fails. */
static struct control { atomic_long tail, size, gaps, deaf, forgets, dies, failures[3]; } *control;
/* ended: for an END, the place of the entry that it ends.  kind is written last: before that the entry is not there. */
struct entry { uint32_t size; _Atomic uint32_t kind; int64_t ended, inode, offset, length; };
enum { WRITE = 1, TRUNCATE, SYNC, CREATE, RENAME, LINK, UNLINK, MKDIR, RMDIR, END, FORGET };
enum { DEAF_FILES = 1, DEAF_FOLDERS = 2, DEAF_STORE = 4 };
enum { NEITHER, LOG, STORE };
/* How many failures each descriptor has been told of, or lie before its opening. */
static _Atomic int heard[1 << 16];
static char root[PATH_MAX];

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("RELAY_RECORD"), *below = getenv("RELAY_RECORD_ROOT");
    int file = name && below ? open(name, O_RDWR | O_CLOEXEC) : -1;
    struct stat status;
    if (file < 0) return;
    snprintf(root, sizeof root, "%s", below);
    if (!fstat(file, &status)) {
        void *at = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        control = at == MAP_FAILED ? NULL : at;
    }
    close(file);
}

/* The log's index is made anew by every start, locks and the journal promise nothing, and a file that has lost its name is gone. */
static int is_watched(const char *path) {
    static const char *const others[] = {"-shm", ".lock", "/journal.txt", "/known_hosts", " (deleted)"};
    size_t length = strlen(root);
    if (!control || strncmp(path, root, length) || (path[length] && path[length] != '/')) return 0;
    for (size_t each = 0; each < sizeof others / sizeof *others; each++) {
        size_t end = strlen(others[each]);
        if (strlen(path) >= end && !strcmp(path + strlen(path) - end, others[each])) return 0;
    }
    return 1;
}

static int find_path(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
    return length > 0;
}

static int is_open_watched(int file) {
    char path[PATH_MAX];
    return control && find_path(file, path) && is_watched(path);
}

static void make_absolute(int folder, const char *path, char *whole) {
    char link[64];
    whole[0] = 0;
    if (!path) return;
    if (path[0] != '/') {
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, whole, PATH_MAX - 1);
        length = length > 0 ? length : 0;
        whole[length++] = '/';
        whole[length] = 0;
    }
    strncat(whole, path, PATH_MAX - 1 - strlen(whole));
}

static int64_t emit(uint32_t kind, int64_t ended, int64_t inode, int64_t offset, const void *data, size_t length) {
    size_t size = (sizeof(struct entry) + length + 7) & ~(size_t)7;
    int64_t place = atomic_fetch_add(&control->tail, (long)size);
    if (place + (int64_t)size > atomic_load(&control->size)) {
        atomic_fetch_add(&control->gaps, 1);
        return 0;
    }
    struct entry *entry = (struct entry *)((char *)control + place);
    entry->size = (uint32_t)size, entry->ended = ended, entry->inode = inode, entry->offset = offset, entry->length = (int64_t)length;
    if (length) memcpy(entry + 1, data, length);
    atomic_store(&entry->kind, kind);
    return place;
}

static int64_t inode_of(int file) {
    struct stat status;
    return fstat(file, &status) ? 0 : (int64_t)status.st_ino;
}

static void finish(int64_t place, int64_t result, int64_t inode) {
    int code = errno;
    if (place) emit(END, place, inode, result, NULL, 0);
    errno = code;
}

#define REAL(type, name, ...)                        \
    static type (*real)(__VA_ARGS__);                \
    if (!real) real = dlsym(RTLD_NEXT, #name);

/* --- bytes --- */

#define PWRITE(name, offset_type)                                                    \
    ssize_t name(int file, const void *data, size_t size, offset_type at) {          \
        REAL(ssize_t, name, int, const void *, size_t, offset_type)                  \
        int64_t place = is_open_watched(file) ? emit(WRITE, 0, inode_of(file), at, data, size) : 0; \
        ssize_t result = real(file, data, size, at);                                 \
        finish(place, result, 0);                                                    \
        return result;                                                               \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t write(int file, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t)
    int64_t place = 0;
    if (is_open_watched(file)) {
        struct stat status;
        int appends = fcntl(file, F_GETFL) & O_APPEND;
        int64_t at = appends && !fstat(file, &status) ? status.st_size : lseek(file, 0, SEEK_CUR);
        place = emit(WRITE, 0, inode_of(file), at, data, size);
    }
    ssize_t result = real(file, data, size);
    finish(place, result, 0);
    return result;
}

#define CUT(name, offset_type)                                                                \
    int name(int file, offset_type size) {                                                    \
        REAL(int, name, int, offset_type)                                                     \
        int64_t place = is_open_watched(file) ? emit(TRUNCATE, 0, inode_of(file), size, NULL, 0) : 0; \
        int result = real(file, size);                                                        \
        finish(place, result, 0);                                                             \
        return result;                                                                        \
    }
CUT(ftruncate, off_t)
CUT(ftruncate64, off64_t)

/* --- syncs --- */

static int part_of(const char *path) {
    const char *name = strrchr(path, '/');
    return !name ? NEITHER : !strcmp(name, "/relay.db-wal") ? LOG : !strcmp(name, "/relay.db") ? STORE : NEITHER;
}

/* As Linux does: a sync that fails is told once on each descriptor that was open, and what it should have kept counts as
   written from then on, so the next one succeeds. */
static int is_failing(int file, const char *path, int64_t inode) {
    int part = part_of(path);
    long forgets = part;
    if (!part || file >= 1 << 16) return 0;
    if (atomic_compare_exchange_strong(&control->forgets, &forgets, NEITHER)) {
        int64_t place = emit(FORGET, 0, inode, 0, NULL, 0);
        atomic_fetch_add(&control->failures[part], 1);
        finish(place, 0, 0);
        if (atomic_load(&control->dies)) kill(0, SIGKILL);
    }
    int failures = (int)atomic_load(&control->failures[part]);
    if (atomic_exchange(&heard[file], failures) == failures) return 0;
    errno = EIO;
    return 1;
}

static void hear(int file, const char *path) {
    int part = control && file >= 0 && file < 1 << 16 ? part_of(path) : NEITHER;
    if (part) atomic_store(&heard[file], (int)atomic_load(&control->failures[part]));
}

#define SYNCING(name)                                                          \
    int name(int file) {                                                       \
        REAL(int, name, int)                                                   \
        struct stat status;                                                    \
        int64_t place = 0;                                                     \
        if (is_open_watched(file) && !fstat(file, &status)) {                  \
            char path[PATH_MAX];                                               \
            long deaf = S_ISDIR(status.st_mode) ? DEAF_FOLDERS : DEAF_FILES;   \
            if (find_path(file, path) && strstr(path, "/relay.db")) deaf |= DEAF_STORE; \
            if (atomic_load(&control->deaf) & deaf) return 0;                  \
            if (is_failing(file, path, (int64_t)status.st_ino)) return -1;     \
            place = emit(SYNC, 0, (int64_t)status.st_ino, 0, NULL, 0);         \
        }                                                                      \
        int result = real(file);                                               \
        finish(place, result, 0);                                              \
        return result;                                                         \
    }
SYNCING(fsync)
SYNCING(fdatasync)

/* --- names --- */

#define OPENING(name, has_folder)                                                                     \
    int name(HEAD_##has_folder const char *path, int flags, ...) {                                    \
        REAL(int, name, HEAD_##has_folder const char *, int, ...)                                     \
        va_list rest;                                                                                 \
        va_start(rest, flags);                                                                        \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;                     \
        va_end(rest);                                                                                 \
        char whole[PATH_MAX];                                                                         \
        struct stat status;                                                                           \
        int64_t place = 0;                                                                            \
        if (control && flags & (O_CREAT | O_TRUNC)) {                                                 \
            make_absolute(FOLDER_##has_folder, path, whole);                                          \
            int is_new = stat(whole, &status) != 0;                                                   \
            if (is_watched(whole) && is_new && flags & O_CREAT)                                       \
                place = emit(CREATE, 0, 0, mode, whole, strlen(whole));                               \
            else if (is_watched(whole) && !is_new && flags & O_TRUNC)                                 \
                place = emit(TRUNCATE, 0, (int64_t)status.st_ino, 0, NULL, 0);                        \
        }                                                                                             \
        int file = real(ARGUMENT_##has_folder path, flags, mode);                                     \
        if (place) finish(place, file, file < 0 ? 0 : inode_of(file));                                \
        hear(file, path);                                                                             \
        return file;                                                                                  \
    }
#define HEAD_0
#define HEAD_1 int folder,
#define ARGUMENT_0
#define ARGUMENT_1 folder,
#define FOLDER_0 AT_FDCWD
#define FOLDER_1 folder
OPENING(open, 0)
OPENING(open64, 0)
OPENING(openat, 1)
OPENING(openat64, 1)

static int64_t note_names(uint32_t kind, int from, const char *path, int to, const char *target) {
    char both[2 * PATH_MAX], other[PATH_MAX];
    if (!control) return 0;
    make_absolute(from, path, both);
    make_absolute(to, target, other);
    if (!is_watched(both) && !(target && is_watched(other))) return 0;
    size_t length = strlen(both);
    if (target) {
        memcpy(both + length + 1, other, strlen(other) + 1);
        length += 1 + strlen(other);
    }
    return emit(kind, 0, 0, 0, both, length);
}

#define NAMING(kind, name, parameters, arguments, from, path, to, target)            \
    int name parameters {                                                            \
        static int (*real) parameters;                                               \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                   \
        int64_t place = note_names(kind, from, path, to, target);                    \
        int result = real arguments;                                                 \
        struct stat status;                                                          \
        finish(place, result, kind == MKDIR && !stat(path, &status) ? (int64_t)status.st_ino : 0); \
        return result;                                                               \
    }
NAMING(RENAME, rename, (const char *path, const char *target), (path, target), AT_FDCWD, path, AT_FDCWD, target)
NAMING(RENAME, renameat, (int from, const char *path, int to, const char *target), (from, path, to, target), from, path, to, target)
NAMING(LINK, link, (const char *path, const char *target), (path, target), AT_FDCWD, path, AT_FDCWD, target)
NAMING(LINK, linkat, (int from, const char *path, int to, const char *target, int flags), (from, path, to, target, flags), from, path, to, target)
NAMING(UNLINK, unlink, (const char *path), (path), AT_FDCWD, path, AT_FDCWD, NULL)
NAMING(UNLINK, unlinkat, (int from, const char *path, int flags), (from, path, flags), from, path, AT_FDCWD, NULL)
NAMING(UNLINK, remove, (const char *path), (path), AT_FDCWD, path, AT_FDCWD, NULL)
NAMING(RMDIR, rmdir, (const char *path), (path), AT_FDCWD, path, AT_FDCWD, NULL)
NAMING(MKDIR, mkdir, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path, AT_FDCWD, NULL)

/* --- what is not recorded: a file that was changed in one of these ways is a gap --- */

#define GAP(type, name, parameters, arguments, changes)                      \
    type name parameters {                                                   \
        static type (*real) parameters;                                      \
        if (!real) real = dlsym(RTLD_NEXT, #name);                           \
        if (control && (changes)) atomic_fetch_add(&control->gaps, 1);       \
        return real arguments;                                               \
    }
GAP(ssize_t, writev, (int file, const struct iovec *parts, int count), (file, parts, count), is_open_watched(file))
GAP(ssize_t, pwritev, (int file, const struct iovec *parts, int count, off_t at), (file, parts, count, at), is_open_watched(file))
GAP(ssize_t, pwritev64, (int file, const struct iovec *parts, int count, off64_t at), (file, parts, count, at), is_open_watched(file))
GAP(int, truncate, (const char *path, off_t size), (path, size), is_watched(path))
GAP(int, truncate64, (const char *path, off64_t size), (path, size), is_watched(path))
GAP(int, fallocate, (int file, int mode, off_t at, off_t size), (file, mode, at, size), is_open_watched(file))
GAP(int, fallocate64, (int file, int mode, off64_t at, off64_t size), (file, mode, at, size), is_open_watched(file))
GAP(int, posix_fallocate, (int file, off_t at, off_t size), (file, at, size), is_open_watched(file))
GAP(int, posix_fallocate64, (int file, off64_t at, off64_t size), (file, at, size), is_open_watched(file))
GAP(ssize_t, sendfile, (int to, int from, off_t *at, size_t count), (to, from, at, count), is_open_watched(to))
GAP(ssize_t, sendfile64, (int to, int from, off64_t *at, size_t count), (to, from, at, count), is_open_watched(to))
GAP(ssize_t, copy_file_range, (int from, off64_t *at, int to, off64_t *there, size_t count, unsigned flags), (from, at, to, there, count, flags), is_open_watched(to))
GAP(int, renameat2, (int from, const char *path, int to, const char *target, unsigned flags), (from, path, to, target, flags), is_watched(path))
#define IS_WRITTEN ((protection & PROT_WRITE) && (flags & MAP_SHARED) && file >= 0 && is_open_watched(file))
GAP(void *, mmap, (void *at, size_t size, int protection, int flags, int file, off_t offset), (at, size, protection, flags, file, offset), IS_WRITTEN)
GAP(void *, mmap64, (void *at, size_t size, int protection, int flags, int file, off64_t offset), (at, size, protection, flags, file, offset), IS_WRITTEN)
