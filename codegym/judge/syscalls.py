"""System call numbers by architecture, and which calls a program may make freely."""


def _numbers(table: str) -> dict[str, int]:
    words = table.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def _names(table: str) -> tuple[str, ...]:
    return tuple(table.split())


# No chmod, utime or truncate: Landlock does not watch them, and the files of this user are their prey.
ALLOWED = _names("""
read write mmap munmap brk recvmsg recvfrom sendto sendmsg futex close openat open fstat stat newfstatat
lseek lstat readv writev pread64 pwrite64 preadv pwritev mprotect mremap madvise rt_sigaction
rt_sigprocmask rt_sigreturn getdents64 getdents creat close_range statx access faccessat faccessat2
readlink readlinkat getcwd chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2
link linkat symlink symlinkat ftruncate fsync fdatasync flock umask dup dup2 dup3 pipe pipe2 eventfd2
epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6
timerfd_create timerfd_settime timerfd_gettime msync set_robust_list get_robust_list rseq
rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause alarm setitimer getitimer nanosleep
clock_nanosleep clock_gettime clock_getres gettimeofday time times getrusage getrlimit sysinfo uname
getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp getpgid getsid
sched_yield sched_getaffinity getcpu getrandom exit exit_group restart_syscall set_tid_address arch_prctl
shutdown getsockopt getsockname getpeername setsockopt wait4 waitid sendfile fadvise64 statfs fstatfs
""")

X86_64 = _numbers("""
read 0  write 1  readv 19  writev 20  pread64 17  pwrite64 18  preadv 295  pwritev 296  open 2
openat 257  creat 85  close 3  close_range 436  lseek 8  stat 4  fstat 5  lstat 6  newfstatat 262
statx 332  access 21  faccessat 269  faccessat2 439  readlink 89  readlinkat 267  getdents 78
getdents64 217  getcwd 79  chdir 80  fchdir 81  mkdir 83  mkdirat 258  rmdir 84  unlink 87  unlinkat 263
rename 82  renameat 264  renameat2 316  link 86  linkat 265  symlink 88  symlinkat 266  ftruncate 77
fsync 74  fdatasync 75  flock 73  umask 95  dup 32  dup2 33  dup3 292  pipe 22  pipe2 293  eventfd2 290
epoll_create 213  epoll_create1 291  epoll_ctl 233  epoll_wait 232  epoll_pwait 281  epoll_pwait2 441
poll 7  ppoll 271  select 23  pselect6 270  timerfd_create 283  timerfd_settime 286  timerfd_gettime 287
mmap 9  munmap 11  mprotect 10  mremap 25  madvise 28  brk 12  msync 26  futex 202
set_robust_list 273  get_robust_list 274  rseq 334  rt_sigaction 13  rt_sigprocmask 14  rt_sigreturn 15
rt_sigpending 127  rt_sigtimedwait 128  rt_sigsuspend 130  sigaltstack 131  pause 34  alarm 37
setitimer 38  getitimer 36  nanosleep 35  clock_nanosleep 230  clock_gettime 228  clock_getres 229
gettimeofday 96  time 201  times 100  getrusage 98  getrlimit 97  sysinfo 99  uname 63  getpid 39
getppid 110  gettid 186  getuid 102  geteuid 107  getgid 104  getegid 108  getresuid 118  getresgid 120
getgroups 115  getpgrp 111  getpgid 121  getsid 124  sched_yield 24  sched_getaffinity 204  getcpu 309
getrandom 318  exit 60  exit_group 231  restart_syscall 219  set_tid_address 218  arch_prctl 158
sendto 44  recvfrom 45  sendmsg 46  recvmsg 47  shutdown 48  getsockopt 55  getsockname 51
getpeername 52  setsockopt 54  wait4 61  waitid 247  sendfile 40  fadvise64 221  statfs 137  fstatfs 138
ioctl 16  fcntl 72  prlimit64 302  kill 62  tkill 200  tgkill 234  clone 56  clone3 435  socketpair 53
""")

AARCH64 = _numbers("""
read 63  write 64  readv 65  writev 66  pread64 67  pwrite64 68  preadv 69  pwritev 70  openat 56
close 57  close_range 436  lseek 62  fstat 80  newfstatat 79  statx 291  faccessat 48  faccessat2 439
readlinkat 78  getdents64 61  getcwd 17  chdir 49  fchdir 50  mkdirat 34  unlinkat 35  renameat 38
renameat2 276  linkat 37  symlinkat 36  ftruncate 46  fsync 82  fdatasync 83  flock 32  umask 166  dup 23
dup3 24  pipe2 59  eventfd2 19  epoll_create1 20  epoll_ctl 21  epoll_pwait 22  epoll_pwait2 441
ppoll 73  pselect6 72  timerfd_create 85  timerfd_settime 86  timerfd_gettime 87  mmap 222  munmap 215
mprotect 226  mremap 216  madvise 233  brk 214  msync 227  futex 98  set_robust_list 99
get_robust_list 100  rseq 293  rt_sigaction 134  rt_sigprocmask 135  rt_sigreturn 139  rt_sigpending 136
rt_sigtimedwait 137  rt_sigsuspend 133  sigaltstack 132  setitimer 103  getitimer 102  nanosleep 101
clock_nanosleep 115  clock_gettime 113  clock_getres 114  gettimeofday 169  times 153  getrusage 165
getrlimit 163  sysinfo 179  uname 160  getpid 172  getppid 173  gettid 178  getuid 174  geteuid 175
getgid 176  getegid 177  getresuid 148  getresgid 150  getgroups 158  getpgid 155  getsid 156
sched_yield 124  sched_getaffinity 123  getcpu 168  getrandom 278  exit 93  exit_group 94
restart_syscall 128  set_tid_address 96  sendto 206  recvfrom 207  sendmsg 211  recvmsg 212  shutdown 210
getsockopt 209  getsockname 204  getpeername 205  setsockopt 208  wait4 260  waitid 95  sendfile 71
fadvise64 223  statfs 43  fstatfs 44  ioctl 29  fcntl 25  prlimit64 261  kill 129  tkill 130  tgkill 131
clone 220  clone3 435  socketpair 199
""")
