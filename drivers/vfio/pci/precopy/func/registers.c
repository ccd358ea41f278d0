// SPDX-License-Identifier: GPL-2.0-only
/*
 * BAR0: the registers of the engine, as <linux/vfio_precopy_engine.h> describes
 * them. They are a table; an access is a number of dwords under state_lock.
 */

#include <linux/align.h>
#include <linux/build_bug.h>
#include <linux/log2.h>
#include <linux/minmax.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>
#include <kunit/visibility.h>

#include "clear.h"
#include "engine.h"
#include "epf.h"
#include "irq.h"
#include "precopy.h"
#include "registers.h"
#include "step.h"

/* Dwords that are read or written under one lock */
#define PRECOPY_MAX_DWORDS	64
/* An entry of the MSI-X table has 16 bytes */
#define PRECOPY_TABLE_END	(PRECOPY_ENGINE_MSIX_TABLE + 16 * PRECOPY_ENGINE_VECTORS)

/**
 * struct precopy_register - a register
 * @offset: offset in BAR0
 * @size: 4 or 8 bytes
 * @field: offset in struct precopy_engine_state, without @get
 * @get: function that returns the value, or NULL
 * @set: function that is given a new value; NULL if the value is stored in @field.
 *	 Only for registers of 4 bytes.
 * @locked: function that tells whether writes have no effect now, or NULL
 */
struct precopy_register {
	u32	offset;
	u32	size;
	size_t	field;
	u64	(*get)(const struct precopy_engine *engine);
	void	(*set)(struct precopy_engine *engine, u32 value);
	bool	(*locked)(const struct precopy_engine *engine);
};

/* --- What reads and writes do ------------------------------------------ */

static u64 precopy_get_id(const struct precopy_engine *engine)
{
	return PRECOPY_ENGINE_MAGIC;
}

static u64 precopy_get_version(const struct precopy_engine *engine)
{
	return 1;
}

static u64 precopy_get_caps(const struct precopy_engine *engine)
{
	return BIT(PRECOPY_ENGINE_OP_COPY) | BIT(PRECOPY_ENGINE_OP_FILL) |
	       BIT(PRECOPY_ENGINE_OP_STAMP) | BIT(PRECOPY_ENGINE_OP_FENCE) |
	       BIT(PRECOPY_ENGINE_OP_IRQ);
}

static u64 precopy_get_status(const struct precopy_engine *engine)
{
	const struct precopy_engine_state *state = &engine->state;
	u64 status = 0;

	if (state->command.active)
		status |= PRECOPY_ENGINE_STATUS_COMMAND;
	if (state->ring.head != state->ring.tail)
		status |= PRECOPY_ENGINE_STATUS_RING;
	return status;
}

static u64 precopy_get_nothing(const struct precopy_engine *engine)
{
	return 0;
}

static u64 precopy_get_started(const struct precopy_engine *engine)
{
	return engine->state.command.active;
}

static bool precopy_always_locked(const struct precopy_engine *engine)
{
	return true;
}

static bool precopy_command_locked(const struct precopy_engine *engine)
{
	return engine->state.command.active;
}

static bool precopy_ring_locked(const struct precopy_engine *engine)
{
	return engine->state.ctrl & PRECOPY_ENGINE_CTRL_RING;
}

static void precopy_set_ctrl(struct precopy_engine *engine, u32 value)
{
	struct precopy_ring *ring = &engine->state.ring;
	bool enable = value & PRECOPY_ENGINE_CTRL_RING;

	if (enable == precopy_ring_locked(engine))
		return;
	if (!enable) {
		precopy_engine_stop_ring(engine, 0);
		return;
	}
	ring->head = 0;
	ring->tail = 0;
	ring->phase = PRECOPY_RING_FETCH;
	ring->error = precopy_ring_valid(ring) ? 0 : EINVAL;
	if (!ring->error)
		engine->state.ctrl |= PRECOPY_ENGINE_CTRL_RING;
}

static void precopy_set_tail(struct precopy_engine *engine, u32 value)
{
	if (!precopy_ring_locked(engine))
		return;
	if (value < engine->state.ring.size)
		engine->state.ring.tail = value;
	else
		precopy_engine_stop_ring(engine, EINVAL);
}

static void precopy_set_start(struct precopy_engine *engine, u32 value)
{
	struct precopy_command *command = &engine->state.command;
	int ret;

	if (!value == !command->active)
		return;
	if (!value) {
		precopy_engine_stop_command(engine);
		return;
	}
	command->done = 0;
	command->error = 0;
	command->job.pos = 0;
	command->active = true;
	ret = precopy_job_check(&command->job, engine->pcd->memory.size);
	if (ret)
		precopy_engine_end_command(engine, -ret);
}

/* --- The table --------------------------------------------------------- */

#define STATE(member)	.field = offsetof(struct precopy_engine_state, member), \
			.size = sizeof_field(struct precopy_engine_state, member)

static const struct precopy_register precopy_registers[] = {
	{ PRECOPY_EPF_MAGIC, STATE(epf.magic) },
	{ PRECOPY_EPF_COMMAND, STATE(epf.command), .set = precopy_epf_start,
	  .locked = precopy_epf_active },
	{ PRECOPY_EPF_STATUS, STATE(epf.status), .locked = precopy_epf_active },
	{ PRECOPY_EPF_SRC, STATE(epf.src), .locked = precopy_epf_active },
	{ PRECOPY_EPF_DST, STATE(epf.dst), .locked = precopy_epf_active },
	{ PRECOPY_EPF_SIZE, STATE(epf.size), .locked = precopy_epf_active },
	{ PRECOPY_EPF_CHECKSUM, STATE(epf.checksum),
	  .locked = precopy_epf_active },
	{ PRECOPY_EPF_IRQ_TYPE, STATE(epf.irq_type),
	  .locked = precopy_epf_active },
	{ PRECOPY_EPF_IRQ_NUMBER, STATE(epf.irq_number),
	  .locked = precopy_epf_active },
	{ PRECOPY_EPF_FLAGS, STATE(epf.flags), .locked = precopy_epf_active },
	{ PRECOPY_EPF_CAPS, 4, .get = precopy_epf_caps,
	  .locked = precopy_always_locked },

	{ PRECOPY_ENGINE_ID, 4, .get = precopy_get_id,
	  .locked = precopy_always_locked },
	{ PRECOPY_ENGINE_VERSION, 4, .get = precopy_get_version,
	  .locked = precopy_always_locked },
	{ PRECOPY_ENGINE_CAPS, 4, .get = precopy_get_caps,
	  .locked = precopy_always_locked },
	{ PRECOPY_ENGINE_CTRL, STATE(ctrl), .set = precopy_set_ctrl },
	{ PRECOPY_ENGINE_STATUS, 4, .get = precopy_get_status,
	  .locked = precopy_always_locked },
	{ PRECOPY_ENGINE_IRQ_RAISE, 4, .get = precopy_get_nothing,
	  .set = precopy_irq_raise },

	{ PRECOPY_ENGINE_RING_BASE, STATE(ring.base),
	  .locked = precopy_ring_locked },
	{ PRECOPY_ENGINE_RING_SIZE, STATE(ring.size),
	  .locked = precopy_ring_locked },
	{ PRECOPY_ENGINE_RING_HEAD, STATE(ring.head),
	  .locked = precopy_always_locked },
	{ PRECOPY_ENGINE_RING_TAIL, STATE(ring.tail), .set = precopy_set_tail },
	{ PRECOPY_ENGINE_RING_VECTOR, STATE(ring.vector) },
	{ PRECOPY_ENGINE_INTERVAL_US, STATE(interval_us) },
	{ PRECOPY_ENGINE_RING_ERROR, STATE(ring.error),
	  .locked = precopy_always_locked },

	{ PRECOPY_ENGINE_CMD_SRC, STATE(command.job.src),
	  .locked = precopy_command_locked },
	{ PRECOPY_ENGINE_CMD_DST, STATE(command.job.dst),
	  .locked = precopy_command_locked },
	{ PRECOPY_ENGINE_CMD_LEN, STATE(command.job.len),
	  .locked = precopy_command_locked },
	{ PRECOPY_ENGINE_CMD_COUNT, STATE(command.count),
	  .locked = precopy_command_locked },
	{ PRECOPY_ENGINE_CMD_SEQ, STATE(command.job.seq),
	  .locked = precopy_command_locked },
	{ PRECOPY_ENGINE_CMD_OP, STATE(command.job.op),
	  .locked = precopy_command_locked },
	{ PRECOPY_ENGINE_CMD_FLAGS, STATE(command.job.flags),
	  .locked = precopy_command_locked },
	{ PRECOPY_ENGINE_CMD_VECTOR, STATE(command.vector),
	  .locked = precopy_command_locked },
	{ PRECOPY_ENGINE_CMD_START, 4, .get = precopy_get_started,
	  .set = precopy_set_start },
	{ PRECOPY_ENGINE_CMD_ERROR, STATE(command.error),
	  .locked = precopy_always_locked },
	{ PRECOPY_ENGINE_CMD_DONE, STATE(command.done),
	  .locked = precopy_always_locked },
	{ PRECOPY_ENGINE_BYTES, STATE(bytes), .locked = precopy_always_locked },

	{ PRECOPY_ENGINE_MSIX_PBA, STATE(pending),
	  .locked = precopy_always_locked },
};

static const struct precopy_register *precopy_register_find(u64 offset)
{
	const struct precopy_register *reg;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(precopy_registers); i++) {
		reg = &precopy_registers[i];
		if (offset >= reg->offset && offset < reg->offset + reg->size)
			return reg;
	}
	return NULL;
}

static void *precopy_register_field(struct precopy_engine *engine,
				    const struct precopy_register *reg)
{
	return (void *)&engine->state + reg->field;
}

static u64 precopy_register_value(struct precopy_engine *engine,
				  const struct precopy_register *reg)
{
	void *field = precopy_register_field(engine, reg);

	if (reg->get)
		return reg->get(engine);
	return reg->size == sizeof(u64) ? *(u64 *)field : *(u32 *)field;
}

/* As vfio-pci does it: the table is the VMM's, and reads as ones here */
static bool precopy_in_table(u64 offset)
{
	return offset >= PRECOPY_ENGINE_MSIX_TABLE && offset < PRECOPY_TABLE_END;
}

static u32 precopy_dword_get(struct precopy_engine *engine, u64 offset)
{
	const struct precopy_register *reg = precopy_register_find(offset);

	if (precopy_in_table(offset))
		return U32_MAX;
	if (!reg)
		return 0;
	return precopy_register_value(engine, reg) >> 8 * (offset - reg->offset);
}

static void precopy_dword_set(struct precopy_engine *engine, u64 offset,
			      u32 value)
{
	const struct precopy_register *reg = precopy_register_find(offset);

	if (!reg || (reg->locked && reg->locked(engine)))
		return;
	if (reg->set)
		reg->set(engine, value);
	else if (reg->size == sizeof(u32))
		*(u32 *)precopy_register_field(engine, reg) = value;
	else if (offset == reg->offset)
		*(u64 *)precopy_register_field(engine, reg) =
			(precopy_register_value(engine, reg) & ~(u64)U32_MAX) | value;
	else
		*(u64 *)precopy_register_field(engine, reg) =
			(u32)precopy_register_value(engine, reg) | (u64)value << 32;
}

/* --- Accesses ---------------------------------------------------------- */

/* Dwords of an access that are done at once; 0 if it is not one of registers */
static size_t precopy_registers_dwords(size_t count, u64 offset)
{
	if (offset >= PRECOPY_ENGINE_BAR_SIZE || !IS_ALIGNED(offset, sizeof(u32)) ||
	    !IS_ALIGNED(count, sizeof(u32)))
		return 0;
	count = min_t(u64, count, PRECOPY_ENGINE_BAR_SIZE - offset);
	return min(count / sizeof(u32), (size_t)PRECOPY_MAX_DWORDS);
}

/**
 * precopy_registers_read - read() of BAR0
 * @engine: the engine
 * @buf: user buffer to copy to
 * @count: number of bytes to read, a multiple of 4
 * @offset: offset of the first byte in BAR0, a multiple of 4
 *
 * Return: number of bytes read, -EINVAL for another size or place, -EFAULT.
 */
ssize_t precopy_registers_read(struct precopy_engine *engine, char __user *buf,
			       size_t count, u64 offset)
{
	size_t i, nr = precopy_registers_dwords(count, offset);
	__le32 dwords[PRECOPY_MAX_DWORDS];

	if (!nr)
		return -EINVAL;
	scoped_guard(spinlock, &engine->pcd->state_lock)
		for (i = 0; i < nr; i++)
			dwords[i] = cpu_to_le32(precopy_dword_get(engine, offset +
								  i * sizeof(u32)));
	return copy_to_user(buf, dwords, nr * sizeof(u32)) ?
	       -EFAULT : nr * sizeof(u32);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_registers_read);

/* The registers are in a stream, or replaced by one: a write would get lost */
static bool precopy_registers_frozen(const struct precopy_device *pcd)
{
	return pcd->mig_state == VFIO_DEVICE_STATE_STOP_COPY ||
	       pcd->mig_state == VFIO_DEVICE_STATE_RESUMING;
}

static int precopy_registers_set(struct precopy_engine *engine, u64 offset,
				 const __le32 *dwords, size_t nr)
{
	size_t i;

	guard(spinlock)(&engine->pcd->state_lock);
	if (precopy_registers_frozen(engine->pcd))
		return -EIO;
	for (i = 0; i < nr; i++)
		precopy_dword_set(engine, offset + i * sizeof(u32),
				  le32_to_cpu(dwords[i]));
	precopy_engine_kick(engine);
	return 0;
}

/* Is the memory to be cleared? The bit reads as 0. */
static bool precopy_registers_clear(u64 offset, const __le32 *dwords, size_t nr)
{
	u64 i = (PRECOPY_ENGINE_CTRL - offset) / sizeof(u32);

	return offset <= PRECOPY_ENGINE_CTRL && i < nr &&
	       le32_to_cpu(dwords[i]) & PRECOPY_ENGINE_CTRL_CLEAR;
}

/**
 * precopy_registers_write - write() of BAR0
 * @engine: the engine
 * @buf: user buffer to copy from
 * @count: number of bytes to write, a multiple of 4
 * @offset: offset of the first byte in BAR0, a multiple of 4
 *
 * Return: number of bytes written, -EINVAL for another size or place, -EFAULT, -EIO in
 * STOP_COPY and RESUMING, when the registers migrate, or an error of precopy_clear().
 */
ssize_t precopy_registers_write(struct precopy_engine *engine,
				const char __user *buf, size_t count,
				u64 offset)
{
	size_t nr = precopy_registers_dwords(count, offset);
	__le32 dwords[PRECOPY_MAX_DWORDS];
	int ret;

	if (!nr)
		return -EINVAL;
	if (copy_from_user(dwords, buf, nr * sizeof(u32)))
		return -EFAULT;
	ret = precopy_registers_set(engine, offset, dwords, nr);
	if (ret)
		dev_warn_ratelimited(precopy_dev(engine->pcd),
				     "a register was written while the device is stopped to migrate\n");
	else if (precopy_registers_clear(offset, dwords, nr))
		ret = precopy_clear(engine->pcd);
	return ret ?: nr * sizeof(u32);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_registers_write);
