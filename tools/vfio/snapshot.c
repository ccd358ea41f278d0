// SPDX-License-Identifier: GPL-2.0-only
/*
 * Snapshots: files with the frames HELLO, DATA and END of a connection. Files that are
 * incomplete or damaged are refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atomic_file.h"
#include "frame.h"
#include "json.h"
#include "keep.h"
#include "migration.h"
#include "progress.h"
#include "send.h"
#include "source.h"
#include "target.h"
#include "util.h"

/* Time to wait for the end of a pipe before a message is printed */
#define PATIENCE_NS	(2 * NS_PER_S)

/* --- Saving ---------------------------------------------------------------------------- */

/**
 * struct writer - a snapshot file as a sink
 * @sink: must be the first member
 * @file: the file
 * @sequence: sequence number of the next frame
 * @bytes: number of bytes of the stream written
 * @acked: true after the mark, because a file has no startup
 */
struct writer {
	struct sink		sink;
	struct atomic_file	file;
	uint32_t		sequence;
	uint64_t		bytes;
	bool			acked;
};

static int write_frame(struct writer *out, enum frame_type type, const void *payload, uint32_t len)
{
	uint8_t header[FRAME_HEADER_LEN];

	frame_encode(header, type, payload, len, out->sequence++);
	return atomic_file_write(&out->file, header, sizeof(header)) ?:
	       atomic_file_write(&out->file, payload, len);
}

static int writer_push(struct sink *sink, const void *data, uint32_t len)
{
	struct writer *out = (struct writer *)sink;

	out->bytes += len;
	return write_frame(out, FRAME_DATA, data, len);
}

static int writer_mark(struct sink *sink)
{
	((struct writer *)sink)->acked = true;
	return ST_OK;
}

static int writer_idle(struct sink *sink, uint64_t ns)
{
	(void)sink;
	wait_fds(NULL, 0, now_ns() + ns);
	return ST_OK;
}

static void writer_look(struct sink *sink, struct outlook *look)
{
	look->acked = ((struct writer *)sink)->acked;
}

static int write_hello(struct writer *out, const struct device *dev)
{
	uint8_t payload[FRAME_HELLO_LEN];
	struct frame_hello hello;

	describe_device(dev, 0, &hello);
	frame_put_hello(payload, &hello);
	return write_frame(out, FRAME_HELLO, payload, sizeof(payload));
}

static int write_end(struct writer *out)
{
	struct frame_position pos = { .bytes = out->bytes };
	uint8_t payload[FRAME_POSITION_LEN];

	frame_put_position(payload, &pos);
	return write_frame(out, FRAME_END, payload, sizeof(payload));
}

static int save(struct source *src, struct writer *out, const struct options *opt)
{
	int ret, back;

	src->sink = &out->sink;
	src->policy = &opt->policy;
	src->precopy = !opt->stop_copy;
	src->limit.rate = opt->bandwidth;
	ret = write_hello(out, src->dev) ?: source_run(src) ?: write_end(out);
	src->t.ended = now_ns();
	/* The downtime of the device ends here */
	back = source_restore(src);
	progress_clear();
	/* Keep the snapshot if the source is lost, because it has the only copy of the state */
	ret = atomic_file_close(&out->file, ret);
	return back ?: ret;
}

static int save_device(const struct device *dev, struct writer *out, const struct options *opt)
{
	struct source src = { };
	int ret;

	ret = fill_regions(dev, opt) ?: source_init(&src, dev);
	ret = ret ? atomic_file_close(&out->file, ret) : save(&src, out, opt);
	free(src.buf);
	return ret ?: transfer_summary(&src.t, "save", opt->json);
}

int cmd_save(const struct options *opt)
{
	struct writer out = {
		.sink = { writer_push, writer_mark, writer_idle, writer_look },
	};
	struct device dev;
	struct keep keep;
	int ret;

	/* Detect errors before the device is changed */
	ret = device_find(&dev, opt->device) ?: device_open(&dev, opt->iommu, NULL) ?:
	      atomic_file_open(&out.file, opt->output);
	if (ret)
		return ret;
	ret = keep_begin(&keep, &dev, opt);
	if (ret)
		ret = atomic_file_close(&out.file, ret);
	else
		ret = keep_source(&keep, &dev, save_device(&dev, &out, opt));
	device_close(&dev);
	return ret;
}

/* --- Loading ------------------------------------------------------------------------------ */

/**
 * struct reader - a snapshot file that is read
 * @path: name of the file, for messages
 * @fd: file descriptor
 * @sequence: sequence number of the next frame
 * @bytes: number of bytes of the stream read
 * @arrival: display of progress
 */
struct reader {
	const char	*path;
	int		fd;
	uint32_t	sequence;
	uint64_t	bytes;
	struct arrival	arrival;
};

static int unusable(const struct reader *in, const char *why)
{
	return fail(ST_FILE, "%s is not a usable snapshot: %s", in->path, why);
}

/* The file may be a pipe whose writer is slow */
static int read_bytes(struct reader *in, void *buf, size_t len)
{
	struct pollfd pfd = { .fd = in->fd, .events = POLLIN };
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		if (wait_fds(&pfd, 1, NEVER) <= 0) {
			if (interrupted())
				return interrupted();
			continue;
		}
		n = read(in->fd, (char *)buf + done, len - done);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return fail_errno(ST_FILE, "%s", in->path);
		if (!n)
			return unusable(in, "it ends early");
		done += n > 0 ? n : 0;
	}
	return ST_OK;
}

static int read_header(struct reader *in, struct frame_header *frame)
{
	uint8_t header[FRAME_HEADER_LEN];
	int ret = read_bytes(in, header, sizeof(header));
	const char *why;

	if (ret)
		return ret;
	why = frame_decode(header, in->sequence++, frame);
	return why ? unusable(in, why) : ST_OK;
}

static int read_payload(struct reader *in, const struct frame_header *frame, void *payload)
{
	int ret = read_bytes(in, payload, frame->length);
	const char *why;

	if (ret)
		return ret;
	why = frame_check(frame, payload);
	return why ? unusable(in, why) : ST_OK;
}

static int read_hello(struct reader *in, struct frame_hello *saved)
{
	uint8_t payload[FRAME_MAX_SMALL];
	struct frame_header frame;
	int ret = read_header(in, &frame);

	if (ret)
		return ret;
	if (frame.type != FRAME_HELLO)
		return unusable(in, "it does not begin with HELLO");
	ret = read_payload(in, &frame, payload);
	if (!ret)
		frame_get_hello(payload, saved);
	return ret;
}

/*
 * Data after the last frame means that the file is damaged, or that two files were joined.
 * To detect this in a pipe, its writer has to close it.
 */
static int expect_end_of_file(struct reader *in)
{
	struct pollfd pfd = { .fd = in->fd, .events = POLLIN };
	uint64_t deadline = now_ns() + PATIENCE_NS;
	ssize_t n;
	char byte;

	for (;;) {
		if (wait_fds(&pfd, 1, deadline) <= 0) {
			if (interrupted())
				return interrupted();
			if (deadline != NEVER && now_ns() >= deadline) {
				say("the snapshot is complete; waiting for the end of %s",
				    in->path);
				deadline = NEVER;
			}
			continue;
		}
		n = read(in->fd, &byte, 1);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return fail_errno(ST_FILE, "%s", in->path);
		if (n >= 0)
			return n ? unusable(in, "something follows its end") : ST_OK;
	}
}

static int read_end(struct reader *in, const struct frame_header *frame)
{
	uint8_t payload[FRAME_MAX_SMALL];
	struct frame_position pos;
	int ret;

	if (frame->type != FRAME_END)
		return unusable(in, "it contains a frame that does not belong there");
	ret = read_payload(in, frame, payload);
	if (ret)
		return ret;
	frame_get_position(payload, &pos);
	if (pos.bytes != in->bytes)
		return unusable(in, "something is missing");
	return expect_end_of_file(in);
}

/* Wait until the target has a free buffer, or has reached @step */
static int wait_for_target(struct reader *in, struct target *target, void **room,
			   enum target_step step)
{
	struct frame_status status;
	struct target_view view;
	int ret;

	for (;;) {
		ret = interrupted() ?: target_look(target, &view);
		if (!ret && room)
			*room = target_room(target);
		if (ret || (room && *room) || (!room && view.reached >= step))
			return ret;
		target_status(target, &view, &status);
		progress_arrival(&in->arrival, view.written, status.remaining_ns);
		target_wait(target, -1, now_ns() + 200 * NS_PER_MS);
	}
}

static int feed(struct reader *in, struct target *target)
{
	struct frame_header frame;
	void *room = NULL;
	int ret;

	for (;;) {
		ret = wait_for_target(in, target, &room, TARGET_LOAD) ?: read_header(in, &frame);
		if (ret)
			return ret;
		if (frame.type != FRAME_DATA)
			return read_end(in, &frame);
		ret = read_payload(in, &frame, room);
		if (ret)
			return ret;
		in->bytes += frame.length;
		target_push(target, frame.length);
	}
}

static int finish(struct reader *in, struct target *target)
{
	int ret;

	target_ask(target, TARGET_COMMIT);
	ret = wait_for_target(in, target, NULL, TARGET_COMMIT);
	if (ret)
		return ret;
	target_ask(target, TARGET_RUN);
	return wait_for_target(in, target, NULL, TARGET_RUN);
}

static int load_device(const struct device *dev, struct reader *in, const struct options *opt)
{
	struct frame_hello saved, self;
	struct target target;
	uint64_t flags, began;
	char why[256];
	int ret;

	if (mig_obstacle(dev, &flags, why, sizeof(why)))
		return fail(ST_DEVICE, "%s cannot migrate: %s", dev->name, why);
	describe_device(dev, 0, &self);
	ret = read_hello(in, &saved) ?: check_devices(&saved, &self);
	if (ret)
		return ret;
	began = now_ns();
	ret = target_begin(&target, dev) ?: feed(in, &target) ?:
	      finish(in, &target);
	progress_clear();
	if (ret) {
		target_abandon(&target);
		return ret;
	}
	target_end(&target);
	return arrival_summary("load", dev->name, in->bytes, now_ns() - began, opt->json);
}

static int open_input(struct reader *in, const char *path)
{
	struct stat st;

	*in = (struct reader){ .path = path };
	if (strcmp(path, "-")) {
		in->fd = open_slow(path, O_RDONLY);
	} else {
		in->path = "standard input";
		in->fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	}
	if (in->fd < 0)
		return interrupted() ?: fail_errno(ST_FILE, "--input %s", in->path);
	if (!fstat(in->fd, &st) && S_ISREG(st.st_mode))
		in->arrival.of = st.st_size;
	return ST_OK;
}

int cmd_load(const struct options *opt)
{
	struct device dev;
	struct reader in;
	struct keep keep;
	int ret;

	ret = open_input(&in, opt->input) ?: device_find(&dev, opt->device) ?:
	      device_open(&dev, opt->iommu, NULL) ?: keep_begin(&keep, &dev, opt);
	if (ret)
		return ret;
	ret = keep_target(&keep, &dev, load_device(&dev, &in, opt));
	device_close(&dev);
	close(in.fd);
	return ret;
}

/* --- Looking at one ------------------------------------------------------------------------ */

/* Read to the end, because only the end shows that the snapshot is complete */
static int skim(struct reader *in)
{
	uint8_t *payload = malloc(FRAME_MAX_DATA);
	struct frame_header frame;
	int ret;

	if (!payload)
		return fail(ST_FAILED, "no memory");
	for (;;) {
		ret = read_header(in, &frame);
		if (ret || frame.type != FRAME_DATA)
			break;
		ret = read_payload(in, &frame, payload);
		if (ret)
			break;
		in->bytes += frame.length;
	}
	free(payload);
	return ret ?: read_end(in, &frame);
}

static void text_snapshot(const struct reader *in, const struct frame_hello *saved)
{
	char text[32];

	printf("snapshot     %s, complete\n", in->path);
	if (saved->vendor)
		printf("device       %04x:%04x\n", saved->vendor, saved->device);
	printf("driver       %s\n", saved->driver[0] ? saved->driver : "unknown");
	if (saved->memory_size)
		printf("memory       %s\n", text_bytes(text, sizeof(text), saved->memory_size));
	printf("stream       %s\n", text_bytes(text, sizeof(text), in->bytes));
}

static void json_snapshot(const struct reader *in, const struct frame_hello *saved)
{
	struct json json;

	json_begin(&json, stdout);
	json_string(&json, "snapshot", in->path);
	json_bool(&json, "complete", true);
	json_number(&json, "vendor", saved->vendor);
	json_number(&json, "device_id", saved->device);
	json_string(&json, "driver", saved->driver);
	json_number(&json, "memory_size", saved->memory_size);
	json_number(&json, "stream_bytes", in->bytes);
	json_end(&json);
}

int info_snapshot(const struct options *opt)
{
	struct frame_hello saved;
	struct reader in;
	int ret = open_input(&in, opt->input);

	if (ret)
		return ret;
	ret = read_hello(&in, &saved) ?: skim(&in);
	close(in.fd);
	if (ret)
		return ret;
	if (opt->json)
		json_snapshot(&in, &saved);
	else
		text_snapshot(&in, &saved);
	if (fflush(stdout) || ferror(stdout))
		return fail_errno(ST_FILE, "standard output");
	return ST_OK;
}
