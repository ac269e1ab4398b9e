/* Holds: a disk that fails when a test says so. Loaded before the C library into a server under test, whose SQLite calls
   these; files that are not the test's database are left alone. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Whether the test has asked for this fault, by a file of its name, and the descriptor is one of the database's. */
static int fails(const char *fault, int fd) {
    const char *faults = getenv("BATCHIN_TEST_DISK_FAULTS"), *database = getenv("BATCHIN_TEST_DISK_DATABASE");
    char path[4096], link[64];
    if (faults == NULL || database == NULL) return 0;
    snprintf(path, sizeof path, "%s/%s", faults, fault);
    if (access(path, F_OK) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, database, strlen(database)) == 0;
}

#define FAULT(fault, code) \
    if (fails(fault, fd)) { errno = code; return -1; }

ssize_t write(int fd, const void *bytes, size_t n) { FAULT("full", ENOSPC) return REAL(write)(fd, bytes, n); }
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) {
    FAULT("full", ENOSPC) return REAL(pwrite)(fd, bytes, n, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
    FAULT("full", ENOSPC) return REAL(pwrite64)(fd, bytes, n, at);
}
ssize_t read(int fd, void *bytes, size_t n) { FAULT("read", EIO) return REAL(read)(fd, bytes, n); }
ssize_t pread(int fd, void *bytes, size_t n, off_t at) { FAULT("read", EIO) return REAL(pread)(fd, bytes, n, at); }
ssize_t pread64(int fd, void *bytes, size_t n, off64_t at) {
    FAULT("read", EIO) return REAL(pread64)(fd, bytes, n, at);
}
int fsync(int fd) { FAULT("fsync", EIO) return REAL(fsync)(fd); }
int fdatasync(int fd) { FAULT("fsync", EIO) return REAL(fdatasync)(fd); }
