/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * DMA of the device: copies between a buffer and memory that the user has mapped
 * for it. Nothing else is accessed: an address that is not mapped, or not for
 * writing, is an error, and nothing is accessed after its unmapping has returned.
 */
#ifndef PRECOPY_DMA_H
#define PRECOPY_DMA_H

#include <linux/ktime.h>
#include <linux/types.h>

struct device;
struct iommufd_access;
struct iommufd_ctx;
struct iova_bitmap;
struct precopy_device;
struct precopy_dma_log;
struct vfio_device;

/**
 * struct precopy_dma - how an open device reaches memory
 * @sim: iommu_sim_dma_rw() with a reference on its module, if the function is behind
 *	 the simulated IOMMU; else NULL. From bind or open on, until close.
 * @access: access to the user's I/O address space, if the device is bound to
 *	    iommufd and not behind the simulated IOMMU; else NULL. Constant from
 *	    bind to unbind.
 * @log: log of the pages written, or NULL if none was started. From here on protected
 *	 by state_lock.
 * @attached: true if @access is attached
 * @switching: true while @access goes from one address space to another, which is when
 *	       no step is to begin
 * @busy: true while a step is executed, which is when memory may be accessed and
 *	  pages be pinned
 * @claims: number of tasks that wait for the end of a step and cannot be killed
 * @resume_at: time before which no step is to begin, because memory is unmapped
 */
struct precopy_dma {
	int			(*sim)(struct device *dev, dma_addr_t iova,
				       void *buf, size_t len, bool write);
	struct iommufd_access	*access;
	struct precopy_dma_log	*log;
	bool			attached;
	bool			switching;
	bool			busy;
	unsigned int		claims;
	ktime_t			resume_at;
};

/* func/dma.c */
void precopy_dma_open(struct precopy_device *pcd);
void precopy_dma_close(struct precopy_device *pcd);
bool precopy_dma_begin(struct precopy_device *pcd);
void precopy_dma_end(struct precopy_device *pcd);
bool precopy_dma_idle(struct precopy_device *pcd);
void precopy_dma_drain(struct precopy_device *pcd);
int precopy_dma_read(struct precopy_device *pcd, u64 iova, void *buf,
		     size_t len);
int precopy_dma_write(struct precopy_device *pcd, u64 iova, const void *buf,
		      size_t len);
void precopy_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length);

/* func/dma_iommufd.c */
#if IS_ENABLED(CONFIG_IOMMUFD)
int precopy_dma_bind(struct vfio_device *vdev, struct iommufd_ctx *ictx,
		     u32 *id);
void precopy_dma_unbind(struct vfio_device *vdev);
int precopy_dma_attach(struct vfio_device *vdev, u32 *pt_id);
void precopy_dma_detach(struct vfio_device *vdev);
#else
#define precopy_dma_bind	vfio_iommufd_physical_bind
#define precopy_dma_unbind	vfio_iommufd_physical_unbind
#define precopy_dma_attach	vfio_iommufd_physical_attach_ioas
#define precopy_dma_detach	vfio_iommufd_physical_detach_ioas
#endif

/* func/dma_log.c */
extern const struct vfio_log_ops precopy_log_ops;
int precopy_dma_log_reserve(struct precopy_device *pcd, u64 iova);
void precopy_dma_log_mark(struct precopy_device *pcd, u64 iova, bool recorded);
struct precopy_dma_log *precopy_dma_log_detach(struct precopy_device *pcd);
void precopy_dma_log_end(struct precopy_device *pcd, struct precopy_dma_log *log);

#endif /* PRECOPY_DMA_H */
