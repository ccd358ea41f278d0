// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <linux/sizes.h>
#include <linux/types.h>

#include <libvfio.h>
#include <libvfio/slow_file.h>

/* As much of 9P2000.L as it takes to open one file and to read it. */
enum {
	P9_RLERROR = 7,
	P9_TLOPEN = 12,
	P9_TGETATTR = 24,
	P9_TVERSION = 100,
	P9_TATTACH = 104,
	P9_TFLUSH = 108,
	P9_TWALK = 110,
	P9_TREAD = 116,
	P9_TCLUNK = 120,
};

#define P9_HEADER	7	/* size[4] type[1] tag[2] */
#define P9_MSIZE	8192
#define P9_QTDIR	0x80
#define P9_BASIC	0x7ff	/* the attributes of stat() */
#define FILE_SIZE	SZ_1M

struct reply {
	u8 data[P9_MSIZE];
	size_t len;
};

static void put(struct reply *r, const void *data, size_t len)
{
	VFIO_ASSERT_LE(r->len + len, sizeof(r->data));
	memcpy(r->data + r->len, data, len);
	r->len += len;
}

static void put_int(struct reply *r, u64 value, size_t bytes)
{
	put(r, &value, bytes);
}

static u64 get_int(const u8 *from, size_t bytes)
{
	u64 value = 0;

	memcpy(&value, from, bytes);
	return value;
}

static void put_qid(struct reply *r, bool is_file)
{
	put_int(r, is_file ? 0 : P9_QTDIR, 1);
	put_int(r, 1, 4);
	put_int(r, is_file ? 2 : 1, 8);
}

static void put_attributes(struct reply *r, bool is_file)
{
	int i;

	put_int(r, P9_BASIC, 8);
	put_qid(r, is_file);
	put_int(r, is_file ? 0100644 : 040755, 4);
	put_int(r, 0, 8);			/* uid, gid */
	put_int(r, 1, 8);			/* nlink */
	put_int(r, 0, 8);			/* rdev */
	put_int(r, FILE_SIZE, 8);
	put_int(r, SLOW_FILE_LEN, 8);
	put_int(r, FILE_SIZE / 512, 8);
	for (i = 0; i < 10; i++)		/* times, generation, version */
		put_int(r, 0, 8);
}

struct server {
	int sock;
	int asked;
	int answer;
	bool is_file[64];	/* by fid */
	bool reading;		/* a read is not answered yet, and has this tag */
	u8 tag[2];
};

static bool *fid(struct server *s, const u8 *at)
{
	u64 nr = get_int(at, 4);

	VFIO_ASSERT_LT(nr, sizeof(s->is_file));
	return &s->is_file[nr];
}

/* From the root to the file, or to where it started. */
static void walk(struct server *s, struct reply *r, const u8 *body)
{
	u64 names = get_int(body + 8, 2);

	*fid(s, body + 4) = names || *fid(s, body);
	put_int(r, names, 2);
	if (names)
		put_qid(r, true);
}

static u8 serve_one(struct server *s, struct reply *r, u8 type,
		    const u8 *body)
{
	switch (type) {
	case P9_TVERSION:
		put_int(r, P9_MSIZE, 4);
		put_int(r, 8, 2);
		put(r, "9P2000.L", 8);
		break;
	case P9_TATTACH:
		*fid(s, body) = false;
		put_qid(r, false);
		break;
	case P9_TWALK:
		walk(s, r, body);
		break;
	case P9_TGETATTR:
		put_attributes(r, *fid(s, body));
		break;
	case P9_TLOPEN:
		put_qid(r, *fid(s, body));
		put_int(r, 0, 4);
		break;
	case P9_TFLUSH:
		s->reading = false;
		break;
	case P9_TCLUNK:
		break;
	default:
		put_int(r, EOPNOTSUPP, 4);
		return P9_RLERROR;
	}

	return type + 1;
}

static bool reply(struct server *s, struct reply *r, u8 type, const u8 *tag)
{
	memcpy(r->data, &(u32){ r->len }, 4);
	r->data[4] = type;
	memcpy(r->data + 5, tag, 2);
	return send(s->sock, r->data, r->len, MSG_NOSIGNAL) > 0;
}

static bool serve_request(struct server *s)
{
	struct reply r = { .len = P9_HEADER };
	u8 request[P9_MSIZE], type;
	size_t len;

	if (recv(s->sock, request, P9_HEADER, MSG_WAITALL) != P9_HEADER)
		return false;
	len = get_int(request, 4);
	VFIO_ASSERT_LT(P9_HEADER, len);
	VFIO_ASSERT_LE(len, sizeof(request));
	recv(s->sock, request + P9_HEADER, len - P9_HEADER, MSG_WAITALL);
	if (request[4] == P9_TREAD) {
		s->reading = true;
		memcpy(s->tag, request + 5, 2);
		return write(s->asked, "", 1) == 1;
	}
	type = serve_one(s, &r, request[4], request + P9_HEADER);
	return reply(s, &r, type, request + 5);
}

static bool serve_answer(struct server *s)
{
	struct reply r = { .len = P9_HEADER };
	u8 data[SLOW_FILE_LEN];

	if (read(s->answer, data, sizeof(data)) != (ssize_t)sizeof(data))
		return false;
	put_int(&r, sizeof(data), 4);
	put(&r, data, sizeof(data));
	s->reading = false;
	return reply(s, &r, P9_TREAD + 1, s->tag);
}

/* Whatever happens to the test, requests other than reads are served. */
static void serve(struct server *s)
{
	struct pollfd fds[] = {
		{ .fd = s->sock, .events = POLLIN },
		{ .events = POLLIN },
	};
	bool going = true;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (going) {
		fds[1].fd = s->reading ? s->answer : -1;
		VFIO_ASSERT_LT(0, poll(fds, 2, -1));
		if (fds[0].revents)
			going = serve_request(s);
		else if (fds[1].revents & POLLIN)
			going = serve_answer(s);
		else
			s->reading = false;
	}
	_exit(0);
}

static void start_server(struct slow_file *f)
{
	int sock[2], asked[2], answer[2];
	struct server s = {};

	VFIO_ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sock), 0);
	VFIO_ASSERT_EQ(pipe(asked), 0);
	VFIO_ASSERT_EQ(pipe(answer), 0);
	f->server = fork();
	VFIO_ASSERT_GE(f->server, 0);
	if (!f->server) {
		close(sock[1]);
		close(asked[0]);
		close(answer[1]);
		s.sock = sock[0];
		s.asked = asked[1];
		s.answer = answer[0];
		serve(&s);
	}
	close(sock[0]);
	close(asked[1]);
	close(answer[0]);
	f->sock = sock[1];
	f->asked = asked[0];
	f->answer = answer[1];
}

static int mount_it(struct slow_file *f, const char *dir)
{
	char options[128];

	snprintf_assert(options, sizeof(options),
			"trans=fd,rfdno=%d,wfdno=%d,version=9p2000.L,access=any,cache=none,msize=%d",
			f->sock, f->sock, P9_MSIZE);
	if (unshare(CLONE_NEWNS))
		return -errno;
	/* Fails in a chroot, where nothing is shared with anybody, either. */
	mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
	return mount("slow", dir, "9p", 0, options) ? -errno : 0;
}

int slow_file_open(struct slow_file *f)
{
	char dir[] = "/tmp/slow.XXXXXX";
	int ret;

	memset(f, 0, sizeof(*f));
	if (!mkdtemp(dir))
		return -errno;
	start_server(f);
	ret = mount_it(f, dir);
	if (!ret) {
		f->dir = open(dir, O_PATH | O_DIRECTORY);
		ret = f->dir < 0 ? -errno : 0;
		umount2(dir, MNT_DETACH);
	}
	rmdir(dir);

	return ret;
}

void slow_file_close(struct slow_file *f)
{
	if (f->server <= 0)
		return;
	if (f->fd > 0)
		close(f->fd);
	if (f->dir > 0)
		close(f->dir);
	close(f->sock);
	close(f->asked);
	close(f->answer);
	/* Served the last close; a reader that is left gets an error. */
	kill(f->server, SIGKILL);
	waitpid(f->server, NULL, 0);
}

static void *ask(void *arg)
{
	struct slow_file *f = arg;

	VFIO_ASSERT_EQ(pread(f->fd, f->to, SLOW_FILE_LEN, 0),
		       (ssize_t)SLOW_FILE_LEN, "O_DIRECT read\n");
	return NULL;
}

void slow_file_ask(struct slow_file *f, void *to)
{
	char byte;

	f->to = to;
	f->fd = openat(f->dir, "data", O_RDONLY | O_DIRECT);
	VFIO_ASSERT_LE(0, f->fd);
	VFIO_ASSERT_EQ(pthread_create(&f->reader, NULL, ask, f), 0);
	VFIO_ASSERT_EQ(read(f->asked, &byte, 1), 1);
}

/*
 * The kernel may release the pin after the read has returned, in a work item. The
 * last close of the file waits for that, since nothing of it is cached.
 */
void slow_file_answer(struct slow_file *f, const void *data)
{
	VFIO_ASSERT_EQ(write(f->answer, data, SLOW_FILE_LEN),
		       (ssize_t)SLOW_FILE_LEN);
	VFIO_ASSERT_EQ(pthread_join(f->reader, NULL), 0);
	VFIO_ASSERT_EQ(close(f->fd), 0);
	f->fd = 0;
}
