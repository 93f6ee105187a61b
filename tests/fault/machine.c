// A machine that fails on purpose, loaded in front of the C library (LD_PRELOAD): it kills the process at a write of
// the journal, loses what was not synced, says that a disk is full or broken, and moves the wall clock.
//
//   MACHINE_FAULT    kill-before:N   SIGKILL instead of the Nth write of a journal file
//                    kill-after:N    SIGKILL once the Nth write is done
//                    kill-torn:N     half of the Nth write, then SIGKILL
//                    power:N         as kill-after, but all that was written since the last sync is gone
//                    sync-error:N    the Nth fdatasync or fsync of a journal file, and all later ones, fail with EIO
//                    full:N          the Nth allocation of a journal file, and all later ones, fail with ENOSPC
//   MACHINE_CLOCK    a file of 8 bytes: nanoseconds to add to the wall clock, read at every look
//
// A journal file is one whose path holds "/journal/".
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum fault { none, kill_before, kill_after, kill_torn, power, sync_error, full };
static enum fault fault;
static long fault_at;
static atomic_long count;
static const volatile int64_t* clock_offset;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

// What was written since the last sync, by file: undone when the power fails.
enum { max_files = 4096 };
struct unsynced {
  char path[256];
  off_t from;
  off_t to;
};
static struct unsynced files[max_files];
static int file_count;

__attribute__((constructor)) static void begin(void) {
  const char* text = getenv("MACHINE_FAULT");
  static const struct {
    const char* name;
    enum fault fault;
  } names[] = {{"kill-before:", kill_before}, {"kill-after:", kill_after},  {"kill-torn:", kill_torn},
               {"power:", power},             {"sync-error:", sync_error}, {"full:", full}};
  for (size_t i = 0; text != NULL && i < sizeof names / sizeof *names; ++i) {
    if (strncmp(text, names[i].name, strlen(names[i].name)) != 0) continue;
    fault = names[i].fault;
    fault_at = atol(text + strlen(names[i].name));
  }
  const char* clock = getenv("MACHINE_CLOCK");
  if (clock == NULL) return;
  const int fd = open(clock, O_RDONLY | O_CLOEXEC);
  void* mapped = fd < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) abort();
  clock_offset = mapped;
}

static int is_journal(int fd, char* path, size_t size) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, size - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strstr(path, "/journal/") != NULL && strstr(path, "/journal/lock") == NULL;
}

static _Noreturn void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static void remember(const char* path, off_t from, off_t to) {
  for (int i = 0; i < file_count; ++i) {
    if (strcmp(files[i].path, path) != 0) continue;
    if (files[i].to == 0 || from < files[i].from) files[i].from = from;
    if (to > files[i].to) files[i].to = to;
    return;
  }
  if (file_count == max_files || strlen(path) >= sizeof files[0].path) abort();
  strcpy(files[file_count].path, path);
  files[file_count].from = from;
  files[file_count++].to = to;
}

static void forget(const char* path) {
  for (int i = 0; i < file_count; ++i)
    if (strcmp(files[i].path, path) == 0) files[i].to = 0;
}

/// The unsynced part reads as zeros: the file's length was there before (it is preallocated).
static _Noreturn void lose_power(void) {
  static const char zeros[65536];
  for (int i = 0; i < file_count; ++i) {
    const int fd = (int)syscall(SYS_openat, AT_FDCWD, files[i].path, O_WRONLY | O_CLOEXEC);
    for (off_t at = files[i].from; fd >= 0 && at < files[i].to; at += (off_t)sizeof zeros) {
      const off_t left = files[i].to - at;
      syscall(SYS_pwrite64, fd, zeros, left < (off_t)sizeof zeros ? left : (off_t)sizeof zeros, at);
    }
  }
  die();
}

/// Says how many of `size` bytes to write.
static size_t before_write(size_t size) {
  const long number = atomic_fetch_add(&count, 1) + 1;
  if (fault == kill_before && number == fault_at) die();
  if (fault == kill_torn && number == fault_at) return size / 2;
  return size;
}

static void after_write(const char* path, off_t from, ssize_t written) {
  if (fault == power && written > 0) remember(path, from, from + written);
  if (fault == power && atomic_load(&count) >= fault_at) lose_power();
  if (fault == kill_after && atomic_load(&count) == fault_at) die();
  if (fault == kill_torn && atomic_load(&count) == fault_at) die();
}

static ssize_t write_at(int fd, const void* data, size_t size, off_t offset) {
  char path[512];
  const int counts = fault != none && fault != sync_error && fault != full && is_journal(fd, path, sizeof path);
  if (!counts) {
    return offset < 0 ? syscall(SYS_write, fd, data, size) : syscall(SYS_pwrite64, fd, data, size, offset);
  }
  pthread_mutex_lock(&mutex);
  const size_t most = before_write(size);
  const off_t from = offset < 0 ? lseek(fd, 0, SEEK_CUR) : offset;
  const ssize_t written =
      offset < 0 ? syscall(SYS_write, fd, data, most) : syscall(SYS_pwrite64, fd, data, most, offset);
  after_write(path, from, written);
  pthread_mutex_unlock(&mutex);
  return written;
}

ssize_t write(int fd, const void* data, size_t size) { return write_at(fd, data, size, -1); }
ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) { return write_at(fd, data, size, offset); }
ssize_t pwrite64(int fd, const void* data, size_t size, off_t offset) { return write_at(fd, data, size, offset); }

static int sync_file(long call, int fd) {
  char path[512];
  if ((fault != sync_error && fault != power) || !is_journal(fd, path, sizeof path)) return (int)syscall(call, fd);
  if (fault == sync_error && atomic_fetch_add(&count, 1) + 1 >= fault_at) {
    errno = EIO;
    return -1;
  }
  pthread_mutex_lock(&mutex);
  const int result = (int)syscall(call, fd);
  if (result == 0) forget(path);
  pthread_mutex_unlock(&mutex);
  return result;
}

int fdatasync(int fd) { return sync_file(SYS_fdatasync, fd); }
int fsync(int fd) { return sync_file(SYS_fsync, fd); }

static int allocate(int fd, int mode, off_t offset, off_t length) {
  char path[512];
  if (fault == full && is_journal(fd, path, sizeof path) && atomic_fetch_add(&count, 1) + 1 >= fault_at) return ENOSPC;
  return syscall(SYS_fallocate, fd, mode, offset, length) == 0 ? 0 : errno;
}
int fallocate(int fd, int mode, off_t offset, off_t length) {
  const int error = allocate(fd, mode, offset, length);
  if (error == 0) return 0;
  errno = error;
  return -1;
}
int fallocate64(int fd, int mode, off_t offset, off_t length) { return fallocate(fd, mode, offset, length); }
int posix_fallocate(int fd, off_t offset, off_t length) { return allocate(fd, 0, offset, length); }
int posix_fallocate64(int fd, off_t offset, off_t length) { return allocate(fd, 0, offset, length); }

int clock_gettime(clockid_t id, struct timespec* now) {
  const int result = (int)syscall(SYS_clock_gettime, id, now);  // not the vDSO's: looking that up may allocate
  if (result != 0 || clock_offset == NULL || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE)) return result;
  const int64_t total = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + *clock_offset;
  now->tv_sec = total / 1000000000;
  now->tv_nsec = total % 1000000000;
  return result;
}
