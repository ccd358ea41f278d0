// SPDX-License-Identifier: GPL-2.0-only
/*
 * precopy_vmm [OPTION]...: a small VMM that migrates a VM from the device $SOURCE to
 * the device $TARGET, both of the model "engine". The VM has another device, $BESIDE,
 * which stays behind. The VMM does all that it has to do, or makes one mistake. "judge"
 * (tools/testing/vfio-precopy/vmm) is to tell which.
 *
 *   --mode MODE		IOMMU interface, as in libvfio (iommufd)
 *   --cancel			cancel the migration when the device has stopped
 *   --mistake NAME		make this mistake
 *   --list			print the names of the mistakes
 *
 * The guest is played here, too: it lets the engine stamp memory without end, store to
 * memory that the VMM takes out meanwhile, and raise an interrupt when the device has
 * just stopped.
 *
 * Exit status: 0; 1 if the VMM failed; 2 after a wrong use; 3 if the migration has
 * completed, but memory of the VM is not what it was.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/mig_device.h>
#include <libvfio/precopy_engine.h>

#define MEMORY		SZ_4M
#define RAM		SZ_4M
#define STAMPED		SZ_1M
#define CHUNK		SZ_64K
#define ROUNDS		3
/* Memory that is taken out during the migration: where it is for the device */
#define DIMM_IOVA	(ENGINE_IOVA + 2 * RAM)
#define DIMM		SZ_64K
#define VECTOR		5
#define BYTES_DIFFER	3

enum mistake {
	NONE,
	LOG_NEVER_STARTED,
	LOG_RANGES_STALE,
	LOG_READ_ONLY_AT_THE_END,
	LOG_NOT_READ_AFTER_THE_STOP,
	LOG_READ_BEFORE_THE_QUIESCE,
	LOG_NOT_MERGED,
	UNMAPPED_UNREAD,
	COMMAND_NOT_RESTORED,
	MSIX_NOT_RESTORED,
	MSIX_RESTORED_TOO_LATE,
	SOURCE_RUNS_TOO,
	STOPPED_BEFORE_P2P,
	LEFT_IN_P2P,
	DEVICE_LEFT_OUT,
	NR_MISTAKES,
};

static const char * const mistakes[NR_MISTAKES] = {
	[NONE]				= "none",
	[LOG_NEVER_STARTED]		= "log-never-started",
	[LOG_RANGES_STALE]		= "log-ranges-stale",
	[LOG_READ_ONLY_AT_THE_END]	= "log-read-only-at-the-end",
	[LOG_NOT_READ_AFTER_THE_STOP]	= "log-not-read-after-the-stop",
	[LOG_READ_BEFORE_THE_QUIESCE]	= "log-read-before-the-quiesce",
	[LOG_NOT_MERGED]		= "log-not-merged",
	[UNMAPPED_UNREAD]		= "unmapped-unread",
	[COMMAND_NOT_RESTORED]		= "command-not-restored",
	[MSIX_NOT_RESTORED]		= "msix-not-restored",
	[MSIX_RESTORED_TOO_LATE]	= "msix-restored-too-late",
	[SOURCE_RUNS_TOO]		= "source-runs-too",
	[STOPPED_BEFORE_P2P]		= "stopped-before-p2p",
	[LEFT_IN_P2P]			= "left-in-p2p",
	[DEVICE_LEFT_OUT]		= "device-left-out",
};

static struct {
	const char *mode;
	enum mistake mistake;
	bool cancel;
} options = { .mode = MODE_IOMMUFD };

/* Memory of the VM: where it comes from, and where it goes to; shared */
struct memory {
	u8 *ram;
	u8 *dimm;
};

static struct memory here, there;

#define MUST(condition)							\
	VFIO_ASSERT_TRUE(condition, "precopy_vmm: " #condition "\n")

/* ------------------------------------------------------------------------ */
/* The target, a process of its own that does what it is told               */

enum order {
	ENTER_RESUMING,
	LOAD,
	START,
	HAS_RUN,	/* until the engine has acted at the target */
};

struct message {
	enum order order;
	u32 len;
};

static void send_all(int line, const void *data, size_t len)
{
	ssize_t n;

	for (; len; len -= n, data += n) {
		n = send(line, data, len, MSG_NOSIGNAL);
		MUST(n > 0);
	}
}

static void target_load(int line, int fd, u32 len)
{
	u8 data[CHUNK];
	ssize_t n;

	for (; len; len -= n) {
		n = recv(line, data, len < CHUNK ? len : CHUNK, 0);
		MUST(n > 0);
		MUST(!mig_write_all(fd, data, n, CHUNK, NULL));
	}
}

/* The device, which got nothing, refuses to leave RESUMING: reset it, and go on */
static void target_reset(struct engine *e)
{
	MUST(mig_set_state(e->pd.dev, STOP, NULL) == -EINVAL);
	vfio_pci_device_reset(e->pd.dev);
	MUST(mig_get_state(e->pd.dev) == RUN);
}

/* The stream is complete: restore what the VMM has of the device, and run it */
static void target_start(struct engine *e, int fd)
{
	if (options.mistake == DEVICE_LEFT_OUT)
		target_reset(e);
	else
		MUST(!mig_set_state(e->pd.dev, STOP, NULL));
	close(fd);
	if (options.mistake != COMMAND_NOT_RESTORED)
		engine_set_master(e, true);
	if (options.mistake != MSIX_NOT_RESTORED &&
	    options.mistake != MSIX_RESTORED_TOO_LATE)
		engine_irqs_enable(e);
	MUST(!mig_set_state(e->pd.dev, RUN, NULL));
	if (options.mistake == MSIX_RESTORED_TOO_LATE)
		engine_irqs_enable(e);
}

static void target_has_run(struct engine *e)
{
	u64 done = engine_read64(e, PRECOPY_ENGINE_CMD_DONE);

	if (options.mistake == COMMAND_NOT_RESTORED)
		return;
	MUST(engine_wait_for(e, PRECOPY_ENGINE_CMD_DONE, done + 1));
	if (options.mistake != MSIX_NOT_RESTORED &&
	    options.mistake != MSIX_RESTORED_TOO_LATE)
		MUST(engine_irqs_wait(e, VECTOR) == 1);
}

static void target_obey(struct engine *e, int line)
{
	struct message message;
	int fd = -1;

	while (recv(line, &message, sizeof(message), MSG_WAITALL) ==
	       sizeof(message)) {
		if (message.order == ENTER_RESUMING)
			MUST(!mig_set_state(e->pd.dev, RES, &fd));
		else if (message.order == LOAD)
			target_load(line, fd, message.len);
		else if (message.order == START)
			target_start(e, fd);
		else
			target_has_run(e);
		send_all(line, "", 1);
	}
}

static int target(int line)
{
	struct engine e;

	engine_open_ram(&e, getenv("TARGET"), options.mode, MEMORY, there.ram,
			RAM);
	engine_set_master(&e, false);
	send_all(line, "", 1);
	target_obey(&e, line);
	engine_close(&e);
	return 0;
}

/* ------------------------------------------------------------------------ */
/* The source                                                               */

struct source {
	struct engine e;
	struct engine beside;
	struct dma_region dimm;
	bool dimm_mapped;
	int line;
	int fd;
};

/* Until the target has done what it was told, or is ready in the first place */
static void obeyed(struct source *s)
{
	char done;

	MUST(recv(s->line, &done, 1, 0) == 1);
}

static void tell(struct source *s, enum order what, const void *data, u32 len)
{
	struct message message = { what, len };

	send_all(s->line, &message, sizeof(message));
	send_all(s->line, data, len);
	obeyed(s);
}

/* Everything that the device has to say now */
static void send_device(struct source *s)
{
	struct mig_stream stream = {};
	int ret = mig_stream_drain(&stream, s->fd, CHUNK);

	MUST(!ret || ret == -ENOMSG);
	tell(s, LOAD, stream.data, stream.len);
	mig_stream_free(&stream);
}

static void send_memory(void)
{
	memcpy(there.ram, here.ram, RAM);
	memcpy(there.dimm, here.dimm, DIMM);
}

/* Read the log of a range, and send the pages that it names */
static void send_logged(struct source *s, u64 iova, size_t len, u8 *from, u8 *to)
{
	u64 bitmap[RAM / PRECOPY_PAGE / 64] = {}, page;

	if (options.mistake == LOG_NEVER_STARTED)
		return;
	MUST(!dma_log_report(s->e.pd.dev, iova, len, PRECOPY_PAGE, bitmap));
	if (options.mistake == LOG_NOT_MERGED)
		return;
	for (page = 0; page < len / PRECOPY_PAGE; page++)
		if (bitmap[page / 64] >> page % 64 & 1)
			memcpy(to + page * PRECOPY_PAGE,
			       from + page * PRECOPY_PAGE, PRECOPY_PAGE);
}

static void send_log(struct source *s)
{
	/* The log has no such range in this case */
	if (options.mistake == LOG_RANGES_STALE)
		send_logged(s, ENGINE_IOVA, STAMPED / 2, here.ram, there.ram);
	else
		send_logged(s, ENGINE_IOVA, RAM, here.ram, there.ram);
	if (s->dimm_mapped)
		send_logged(s, DIMM_IOVA, DIMM, here.dimm, there.dimm);
}

static void log_start(struct source *s)
{
	struct vfio_device_feature_dma_logging_range ranges[] = {
		{ ENGINE_IOVA, RAM }, { DIMM_IOVA, DIMM },
	};
	u64 page_size = PRECOPY_PAGE;

	if (options.mistake == LOG_NEVER_STARTED)
		return;
	if (options.mistake == LOG_RANGES_STALE)
		ranges[0].length = STAMPED / 2;
	MUST(!dma_log_start(s->e.pd.dev, &page_size, ranges, 2));
}

static void log_stop(struct source *s)
{
	if (options.mistake != LOG_NEVER_STARTED)
		MUST(!dma_log_stop(s->e.pd.dev));
}

/* The guest writes all of the stamped memory at least once more */
static void guest_goes_on(struct source *s)
{
	u64 done = engine_read64(&s->e, PRECOPY_ENGINE_CMD_DONE);

	MUST(engine_wait_for(&s->e, PRECOPY_ENGINE_CMD_DONE, done + 2));
}

/* The device stores to memory that the VMM then takes away from it */
static void unplug_dimm(struct source *s)
{
	struct precopy_engine_desc *ring = engine_ring(&s->e, RAM - CHUNK, 2);

	ring[0] = (struct precopy_engine_desc) {
		.op = PRECOPY_ENGINE_OP_FILL, .src = 0x600df00d,
		.dst = DIMM_IOVA, .len = DIMM,
	};
	engine_write32(&s->e, PRECOPY_ENGINE_RING_TAIL, 1);
	MUST(engine_wait_head(&s->e, 1));
	MUST(ring[0].status == PRECOPY_ENGINE_DONE);
	if (options.mistake != UNMAPPED_UNREAD)
		send_log(s);
	iommu_unmap(s->e.pd.iommu, &s->dimm);
	s->dimm_mapped = false;
}

static void precopy(struct source *s)
{
	int i;

	log_start(s);
	MUST(!mig_set_state(s->e.pd.dev, PC, &s->fd));
	tell(s, ENTER_RESUMING, NULL, 0);
	send_memory();
	for (i = 0; i < ROUNDS; i++) {
		guest_goes_on(s);
		send_device(s);
		if (options.mistake != LOG_READ_ONLY_AT_THE_END)
			send_log(s);
	}
	/* This one must not have been read before the end */
	if (options.mistake != LOG_READ_ONLY_AT_THE_END)
		unplug_dimm(s);
	/* What only the last reading can tell of */
	guest_goes_on(s);
}

/* The virtual processors have stopped: stop the device, and send what is left */
static void stop(struct source *s)
{
	if (options.mistake == LOG_READ_BEFORE_THE_QUIESCE) {
		send_log(s);
		guest_goes_on(s);
	}
	MUST(!mig_set_state(s->e.pd.dev, PCP, NULL));
	if (options.mistake != STOPPED_BEFORE_P2P)
		MUST(!mig_set_state(s->beside.pd.dev, RP, NULL));
	/* As a peer's store, which may come in this state */
	engine_write32(&s->e, PRECOPY_ENGINE_IRQ_RAISE, VECTOR);
	if (options.mistake != LOG_READ_BEFORE_THE_QUIESCE &&
	    options.mistake != LOG_NOT_READ_AFTER_THE_STOP)
		send_log(s);
}

static void cancel(struct source *s)
{
	log_stop(s);
	close(s->fd);
	if (options.mistake == LEFT_IN_P2P) {
		MUST(!mig_set_state(s->e.pd.dev, RP, NULL));
	} else {
		MUST(!mig_set_state(s->e.pd.dev, RUN, NULL));
		MUST(!mig_set_state(s->beside.pd.dev, RUN, NULL));
		guest_goes_on(s);
	}
}

/* Returns the exit status */
static int complete(struct source *s)
{
	int status = 0;

	MUST(!mig_set_state(s->e.pd.dev, SC, NULL));
	MUST(!mig_set_state(s->beside.pd.dev, STOP, NULL));
	send_device(s);
	/* Nothing moves now: the oracle of the VM's memory */
	if (memcmp(here.ram, there.ram, RAM) || memcmp(here.dimm, there.dimm, DIMM))
		status = BYTES_DIFFER;
	log_stop(s);
	tell(s, START, NULL, 0);
	close(s->fd);
	tell(s, HAS_RUN, NULL, 0);
	MUST(!mig_set_state(s->e.pd.dev,
			    options.mistake == SOURCE_RUNS_TOO ? RUN : STOP,
			    NULL));
	return status;
}

/* Returns the exit status */
static int with_device(struct source *s)
{
	int status = 0;

	precopy(s);
	stop(s);
	if (options.cancel)
		cancel(s);
	else
		status = complete(s);
	engine_close(&s->e);
	return status;
}

/* The VM loses its device at the last moment, and the target is not told */
static int without_device(struct source *s)
{
	engine_set_master(&s->e, false);
	send_memory();
	engine_close(&s->e);
	MUST(!mig_set_state(s->beside.pd.dev, STOP, NULL));
	tell(s, ENTER_RESUMING, NULL, 0);
	tell(s, START, NULL, 0);
	return 0;
}

static void open_source(struct source *s, int line)
{
	u64 page;

	s->line = line;
	engine_open_ram(&s->e, getenv("SOURCE"), options.mode, MEMORY, here.ram,
			RAM);
	s->dimm = (struct dma_region) {
		.vaddr = here.dimm, .iova = DIMM_IOVA, .size = DIMM,
	};
	iommu_map(s->e.pd.iommu, &s->dimm);
	s->dimm_mapped = true;
	for (page = 0; page < RAM / PRECOPY_PAGE; page++)
		precopy_pattern(here.ram + page * PRECOPY_PAGE, page, 1);
	engine_irqs_enable(&s->e);
	engine_open(&s->beside, getenv("BESIDE"), options.mode, MEMORY, RAM);
	obeyed(s);
}

static int source(int line)
{
	struct source s = {};
	int status;

	open_source(&s, line);
	engine_start(&s.e, &(struct engine_command) {
		.op = PRECOPY_ENGINE_OP_STAMP, .dst = ENGINE_IOVA, .len = STAMPED,
	});
	status = options.mistake == DEVICE_LEFT_OUT ? without_device(&s) :
						      with_device(&s);
	engine_close(&s.beside);
	close(line);
	return status;
}

/* ------------------------------------------------------------------------ */

static u8 *shared(size_t size)
{
	u8 *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	MUST(p != MAP_FAILED);
	return p;
}

static int migrate(void)
{
	int line[2], status, died;
	pid_t pid;

	here = (struct memory) { shared(RAM), shared(DIMM) };
	there = (struct memory) { shared(RAM), shared(DIMM) };
	MUST(!socketpair(AF_UNIX, SOCK_STREAM, 0, line));
	pid = fork();
	MUST(pid >= 0);
	if (!pid) {
		close(line[0]);
		_exit(target(line[1]));
	}
	close(line[1]);
	status = source(line[0]);
	MUST(waitpid(pid, &died, 0) == pid);
	return died ? 1 : status;
}

static enum mistake find_mistake(const char *name)
{
	int i;

	for (i = 0; i < NR_MISTAKES; i++)
		if (!strcmp(name, mistakes[i]))
			break;
	return i;
}

static void list_mistakes(void)
{
	int i;

	for (i = NONE + 1; i < NR_MISTAKES; i++)
		puts(mistakes[i]);
}

static void wrong_use(void)
{
	fprintf(stderr,
		"usage: precopy_vmm [--mode MODE] [--cancel] [--mistake NAME]\n"
		"       precopy_vmm --list\n"
		"with SOURCE, TARGET and BESIDE in the environment\n");
	exit(2);
}

static void take_option(int option, const char *value)
{
	if (option == 'm') {
		options.mode = value;
	} else if (option == 'x') {
		options.mistake = find_mistake(value);
	} else if (option == 'c') {
		options.cancel = true;
	} else if (option == 'l') {
		list_mistakes();
		exit(0);
	} else {
		wrong_use();
	}
	if (options.mistake == NR_MISTAKES)
		wrong_use();
}

int main(int argc, char *argv[])
{
	static const struct option known[] = {
		{ "mode", required_argument, NULL, 'm' },
		{ "mistake", required_argument, NULL, 'x' },
		{ "cancel", no_argument, NULL, 'c' },
		{ "list", no_argument, NULL, 'l' },
		{},
	};
	char *bdfs[3];
	int option;

	bdfs[0] = getenv("SOURCE");
	bdfs[1] = getenv("TARGET");
	bdfs[2] = getenv("BESIDE");
	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1)
		take_option(option, optarg);
	if (optind < argc || !bdfs[0] || !bdfs[1] || !bdfs[2])
		wrong_use();
	precopy_require(bdfs, 3);
	return migrate();
}
