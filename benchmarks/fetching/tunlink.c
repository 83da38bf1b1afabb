// A link with delay and rate between two network namespaces, at the speed of the host: netem needs a kernel module.
//
// Each namespace gets a TUN device "link0". Two threads for each direction carry each packet when it is due. Offloads stay
// enabled (IFF_VNET_HDR), so one packet can hold many segments, and 2 Gbit/s cost a fraction of one processor.
//
// usage: tunlink NAMESPACE-A ADDRESS-A/LEN NAMESPACE-B ADDRESS-B/LEN ONE-WAY-DELAY-MS RATE-MBIT QUEUE-MB
// Prints "up" on stdout when packets can pass. Runs until it is killed.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 16384, LARGEST = 65536 + 1024 };

struct packet {
  double due;
  int length;
  char *bytes;
};

struct direction {
  int in, out;
  double delay, bits_per_second, next_free;
  long queued, most_queued;
  struct packet queue[SLOTS];
  unsigned first, last;
  pthread_mutex_t lock;
  pthread_cond_t arrived;
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

// The descriptor stays valid after this process enters another namespace.
static int device(const char *namespace, const char *address) {
  char path[128], command[256];
  snprintf(path, sizeof path, "/run/netns/%s", namespace);
  int entered = open(path, O_RDONLY | O_CLOEXEC);
  if (entered < 0 || setns(entered, CLONE_NEWNET)) fail(path);
  close(entered);
  int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  struct ifreq request = {0};
  strncpy(request.ifr_name, "link0", IFNAMSIZ - 1);
  request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
  if (tun < 0 || ioctl(tun, TUNSETIFF, &request)) fail("TUNSETIFF");
  if (ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)) fail("TUNSETOFFLOAD");
  snprintf(command, sizeof command, "ip addr add %s dev link0 && ip link set link0 mtu 1500 txqueuelen 4000 up && ip link set lo up",
           address);
  if (system(command)) fail("ip");
  return tun;
}

// Reads packets and computes when each is due: after the packets before it at the given rate, plus the delay.
static void *receive(void *argument) {
  struct direction *d = argument;
  for (;;) {
    char *bytes = malloc(LARGEST);
    int length = bytes ? read(d->in, bytes, LARGEST) : -1;
    if (length <= 0) {
      free(bytes);
      continue;
    }
    long wire = length - (long)sizeof(struct virtio_net_hdr);
    pthread_mutex_lock(&d->lock);
    if (d->queued + wire > d->most_queued || d->last - d->first >= SLOTS - 1) {
      pthread_mutex_unlock(&d->lock);
      free(bytes);
      continue;
    }
    double moment = now();
    if (d->next_free < moment) d->next_free = moment;
    d->next_free += wire * 8.0 / d->bits_per_second;
    d->queue[d->last++ % SLOTS] = (struct packet){d->next_free + d->delay, length, bytes};
    d->queued += wire;
    pthread_cond_signal(&d->arrived);
    pthread_mutex_unlock(&d->lock);
  }
  return NULL;
}

static void *deliver(void *argument) {
  struct direction *d = argument;
  for (;;) {
    pthread_mutex_lock(&d->lock);
    while (d->first == d->last) pthread_cond_wait(&d->arrived, &d->lock);
    struct packet packet = d->queue[d->first % SLOTS];
    pthread_mutex_unlock(&d->lock);
    double wait = packet.due - now();
    if (wait > 0) {
      struct timespec pause = {(time_t)wait, (long)((wait - (time_t)wait) * 1e9)};
      nanosleep(&pause, NULL);
    }
    if (write(d->out, packet.bytes, packet.length) < 0 && errno != EIO && errno != EINVAL) perror("write");
    free(packet.bytes);
    pthread_mutex_lock(&d->lock);
    d->first++;
    d->queued -= packet.length - (long)sizeof(struct virtio_net_hdr);
    pthread_mutex_unlock(&d->lock);
  }
  return NULL;
}

int main(int count, char **words) {
  if (count != 8) {
    fprintf(stderr, "usage: tunlink NAMESPACE-A ADDRESS-A NAMESPACE-B ADDRESS-B ONE-WAY-DELAY-MS RATE-MBIT QUEUE-MB\n");
    return 2;
  }
  int ends[2] = {device(words[1], words[2]), device(words[3], words[4])};
  static struct direction directions[2];
  for (int i = 0; i < 2; i++) {
    struct direction *d = &directions[i];
    d->in = ends[i];
    d->out = ends[1 - i];
    d->delay = atof(words[5]) / 1e3;
    d->bits_per_second = atof(words[6]) * 1e6;
    d->most_queued = atof(words[7]) * 1e6;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->arrived, NULL);
    pthread_t thread;
    if (pthread_create(&thread, NULL, receive, d) || pthread_create(&thread, NULL, deliver, d)) fail("pthread_create");
  }
  puts("up");
  fflush(stdout);
  pause();
  return 0;
}
