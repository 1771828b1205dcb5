/* Loaded before the C library (LD_PRELOAD): makes one call of the process fail, or jumps its clock.
 *
 *   EDGEL3_FAULT       "enospc", "eio", "eintr", "short" or "clock"; anything else only counts
 *   EDGEL3_FAULT_AT    number of the call that fails, from 1
 *   EDGEL3_FAULT_ROOT  directory: only files below it count, and for "short" all files
 *   EDGEL3_FAULT_LOG   file to which the process appends its number of calls when it ends
 *
 * A full disk stays full: after "enospc" every further write fails, too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static atomic_long calls;
static const char *fault = "", *root = "";
static long fails_at;

__attribute__((constructor)) static void begin(void) {
  if (getenv("EDGEL3_FAULT") != NULL) fault = getenv("EDGEL3_FAULT");
  if (getenv("EDGEL3_FAULT_ROOT") != NULL) root = getenv("EDGEL3_FAULT_ROOT");
  if (getenv("EDGEL3_FAULT_AT") != NULL) fails_at = atol(getenv("EDGEL3_FAULT_AT"));
}

__attribute__((destructor)) static void end(void) {
  const char *path = getenv("EDGEL3_FAULT_LOG");
  FILE *log = path == NULL ? NULL : fopen(path, "a");
  if (log == NULL) return;
  fprintf(log, "%ld\n", atomic_load(&calls));
  fclose(log);
}

static int is_below_root(int file) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strncmp(path, root, strlen(root)) == 0;
}

/* Count a call. Return whether it is the one that fails. */
static int is_struck(void) { return atomic_fetch_add(&calls, 1) + 1 == fails_at; }

/* Return the error of a write or an fsync of a file below the root, or 0. */
static int write_error(int file) {
  static atomic_int is_full;
  const int saved = errno;
  const int counts = is_below_root(file);
  errno = saved;
  if (!counts || strcmp(fault, "short") == 0 || strcmp(fault, "clock") == 0) return 0;
  if (atomic_load(&is_full)) return ENOSPC;
  if (!is_struck()) return 0;
  if (strcmp(fault, "eio") == 0) return EIO;
  if (strcmp(fault, "eintr") == 0) return EINTR;
  if (strcmp(fault, "enospc") != 0) return 0;
  atomic_store(&is_full, 1);
  return ENOSPC;
}

#define NEXT(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *bytes, size_t count) {
  const int error = write_error(file);
  if (error == 0) return NEXT(write)(file, bytes, count);
  errno = error;
  return -1;
}

int fsync(int file) {
  const int error = write_error(file);
  if (error == 0) return NEXT(fsync)(file);
  errno = error;
  return -1;
}

ssize_t read(int file, void *bytes, size_t count) {
  if (strcmp(fault, "short") == 0 && count > 1 && is_struck()) count = count / 2;
  return NEXT(read)(file, bytes, count);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  const int result = NEXT(clock_gettime)(clock, now);
  if (strcmp(fault, "clock") != 0 || clock != CLOCK_REALTIME) return result;
  /* An hour back after one call, an hour forward after the next: both directions in one run. */
  const long call = atomic_fetch_add(&calls, 1) + 1;
  if (call >= fails_at) now->tv_sec += call % 2 == 0 ? -3600 : 3600;
  return result;
}
