// SPDX-License-Identifier: GPL-2.0-only
#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/compat.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <uapi/linux/bus1.h>
#include "compat.h"
#include "destroy.h"
#include "handle.h"
#include "ioctl-internal.h"
#include "ioctl.h"
#include "main.h"
#include "message.h"
#include "peer.h"
#include "quota.h"
#include "send.h"
#include "trace.h"
#include "user.h"
#include "util/active.h"
#include "util/array.h"

/* A message can name so many handles at least, whatever the limits are. */
#define BUS1_IOCTL_HANDLES_MAX	((u32)BIT(20))

/**
 * struct bus1_ioctl_send - the arrays of a SEND
 * @dests: IDs of the destinations
 * @vecs: payload
 * @handles: IDs of the handles
 * @fds: descriptors
 * @n_bytes: bytes in @vecs
 * @few_dests: memory for a few
 * @few_vecs: memory for a few
 * @few_handles: memory for a few
 * @few_fds: memory for a few
 */
struct bus1_ioctl_send {
	void *dests;
	void *vecs;
	void *handles;
	void *fds;
	u64 n_bytes;
	u64 few_dests[BUS1_IOCTL_INLINE];
	struct iovec few_vecs[BUS1_IOCTL_INLINE];
	u64 few_handles[BUS1_IOCTL_INLINE];
	int few_fds[BUS1_IOCTL_INLINE];
};

/**
 * bus1_ioctl_ptr() - make a pointer of what travelled in 64 bits
 * @value: the address
 * @ptrp: where to store the pointer
 *
 * Context: Any.
 * Return: 0, or -EFAULT if a pointer has fewer bits.
 */
int bus1_ioctl_ptr(u64 value, void __user **ptrp)
{
	if (value != (unsigned long)value)
		return -EFAULT;
	*ptrp = u64_to_user_ptr(value);
	return 0;
}

/* Read an array that is too long for the stack. */
static noinline int bus1_ioctl_array(const void __user *ptr, size_t n,
				     size_t size, void **arrayp)
{
	void *array;

	array = bus1_array_new(n, size);
	if (!array)
		return -ENOMEM;
	if (copy_from_user(array, ptr, n * size)) {
		kvfree(array);
		return -EFAULT;
	}
	*arrayp = array;
	return 0;
}

/**
 * bus1_ioctl_ids() - read an array of IDs, or of offsets
 * @value: its address
 * @n: number of elements
 * @few: memory for %BUS1_IOCTL_INLINE of them: they are read one by one, which takes
 *	no check of sizes
 * @idsp: where to store the array, to be freed by bus1_ioctl_array_free(); may be even if
 *	this fails
 *
 * Context: Process context, may sleep.
 * Return: 0, -EFAULT, or -ENOMEM.
 */
int bus1_ioctl_ids(u64 value, size_t n, u64 *few, void **idsp)
{
	const u64 __user *ids;
	void __user *ptr;
	size_t i;
	int r;

	*idsp = few;
	if (!n)
		return 0;
	r = bus1_ioctl_ptr(value, &ptr);
	if (r < 0)
		return r;
	if (n > BUS1_IOCTL_INLINE)
		return bus1_ioctl_array(ptr, n, sizeof(*few), idsp);
	for (i = 0, ids = ptr; i < n; ++i) {
		if (get_user(few[i], ids + i))
			return -EFAULT;
	}
	return 0;
}

/* The same for descriptors. */
static int bus1_ioctl_fds(u64 value, size_t n, int *few, void **fdsp)
{
	const int __user *fds;
	void __user *ptr;
	size_t i;
	int r;

	*fdsp = few;
	if (!n)
		return 0;
	r = bus1_ioctl_ptr(value, &ptr);
	if (r < 0)
		return r;
	if (n > BUS1_IOCTL_INLINE)
		return bus1_ioctl_array(ptr, n, sizeof(*few), fdsp);
	for (i = 0, fds = ptr; i < n; ++i) {
		if (get_user(few[i], fds + i))
			return -EFAULT;
	}
	return 0;
}

/**
 * bus1_ioctl_array_free() - free an array that was read
 * @array: the array
 * @few: memory for a few elements, that was offered for it
 *
 * Context: Process context, may sleep.
 */
void bus1_ioctl_array_free(void *array, const void *few)
{
	if (array != few)
		kvfree(array);
}

static int bus1_ioctl_peer_query(struct bus1_ioctl *ctx)
{
	struct bus1_cmd_peer_reset query;
	struct bus1_cost limits;

	if (copy_from_user(&query, ctx->uarg, sizeof(query)))
		return -EFAULT;
	if (query.flags)
		return -EINVAL;

	bus1_quota_get_limits(&ctx->peer->quota, &limits);
	query.peer_flags = 0;
	query.max_slices = limits.n[BUS1_RESOURCE_SLICES];
	query.max_handles = limits.n[BUS1_RESOURCE_HANDLES];
	query.max_inflight_bytes = limits.n[BUS1_RESOURCE_BYTES];
	query.max_inflight_fds = limits.n[BUS1_RESOURCE_FDS];
	return copy_to_user(ctx->uarg, &query, sizeof(query)) ? -EFAULT : 0;
}

static int bus1_ioctl_peer_reset(struct bus1_ioctl *ctx)
{
	struct bus1_cmd_peer_reset reset;
	struct bus1_cost limits;
	size_t i;

	if (copy_from_user(&reset, ctx->uarg, sizeof(reset)))
		return -EFAULT;
	if (reset.flags & ~(BUS1_PEER_RESET_FLAG_FLUSH |
			    BUS1_PEER_RESET_FLAG_FLUSH_SEED))
		return -EINVAL;
	if (reset.peer_flags != U64_MAX)
		return -EINVAL;

	limits.n[BUS1_RESOURCE_SLICES] = reset.max_slices;
	limits.n[BUS1_RESOURCE_HANDLES] = reset.max_handles;
	limits.n[BUS1_RESOURCE_BYTES] = reset.max_inflight_bytes;
	limits.n[BUS1_RESOURCE_FDS] = reset.max_inflight_fds;
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		if (limits.n[i] > INT_MAX && limits.n[i] != U32_MAX)
			return -EINVAL;
	}

	return bus1_peer_reset(ctx->peer, &limits,
			       reset.flags & BUS1_PEER_RESET_FLAG_FLUSH,
			       reset.flags & BUS1_PEER_RESET_FLAG_FLUSH_SEED);
}

static int bus1_ioctl_handle_release(struct bus1_ioctl *ctx)
{
	u64 id;

	if (copy_from_user(&id, ctx->uarg, sizeof(id)))
		return -EFAULT;
	return bus1_handle_release(ctx->peer, id);
}

/* Whether the ID is unknown matters before whether the descriptor is. */
static int bus1_ioctl_transfer_refused(struct bus1_peer *peer, u64 id,
				       int error)
{
	struct bus1_handle *handle;
	int r;

	r = bus1_handle_pin(peer, id, 0, &handle);
	if (r == -ENXIO)
		return r;
	if (r >= 0)
		bus1_handle_unpin(handle);
	return error;
}

static int bus1_ioctl_transfer_to(struct bus1_ioctl *ctx, u64 src_id,
				  struct bus1_peer *dst)
{
	struct bus1_cmd_handle_transfer __user *uarg = ctx->uarg;
	struct bus1_handle *src_handle, *dst_handle;
	u64 id;
	int r;

	r = bus1_peer_transfer(ctx->peer, src_id, dst, &src_handle,
			       &dst_handle);
	if (r < 0)
		return r;

	/* Only what was told has happened, and is told again if it has not */
	id = dst_handle ? dst_handle->id : BUS1_HANDLE_INVALID;
	r = put_user(id, &uarg->dst_handle);
	if (r >= 0 && dst_handle && !bus1_handle_import_join(dst_handle)) {
		dst_handle = NULL;
		r = put_user(BUS1_HANDLE_INVALID, &uarg->dst_handle);
	}
	bus1_peer_transfer_done(src_handle, dst_handle, r >= 0);
	return r;
}

static int bus1_ioctl_handle_transfer(struct bus1_ioctl *ctx)
{
	struct bus1_cmd_handle_transfer transfer;
	struct file *file = NULL;
	struct bus1_peer *dst;
	int r;

	if (copy_from_user(&transfer, ctx->uarg, sizeof(transfer)))
		return -EFAULT;
	if (transfer.flags || transfer.dst_handle != BUS1_HANDLE_INVALID)
		return -EINVAL;

	if (transfer.dst_fd == U64_MAX)
		return bus1_ioctl_transfer_to(ctx, transfer.src_handle, ctx->peer);

	if (transfer.dst_fd <= INT_MAX)
		file = fget(transfer.dst_fd);
	if (!file)
		return bus1_ioctl_transfer_refused(ctx->peer,
						   transfer.src_handle,
						   -EBADF);
	if (!bus1_is_peer_file(file)) {
		fput(file);
		return bus1_ioctl_transfer_refused(ctx->peer,
						   transfer.src_handle,
						   -EOPNOTSUPP);
	}
	dst = bus1_file_peer(file);
	if (!bus1_peer_acquire(dst)) {
		ctx->refused = file;
		return bus1_ioctl_transfer_refused(ctx->peer,
						   transfer.src_handle,
						   -ESHUTDOWN);
	}

	r = bus1_ioctl_transfer_to(ctx, transfer.src_handle, dst);
	bus1_peer_release(dst);
	fput(file);
	return r;
}

static int bus1_ioctl_nodes_destroy(struct bus1_ioctl *ctx)
{
	struct bus1_cmd_nodes_destroy destroy;
	u64 few[BUS1_IOCTL_INLINE];
	void *ids;
	int r;

	if (copy_from_user(&destroy, ctx->uarg, sizeof(destroy)))
		return -EFAULT;
	if (destroy.flags & ~BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES)
		return -EINVAL;
	if (destroy.n_nodes > bus1_user_limit(BUS1_RESOURCE_HANDLES))
		return -EINVAL;
	if (!destroy.n_nodes)
		return 0;

	r = bus1_ioctl_ids(destroy.ptr_nodes, destroy.n_nodes, few, &ids);
	if (r < 0)
		return r;
	r = bus1_nodes_destroy(ctx->peer, ids, destroy.n_nodes,
			       destroy.flags &
			       BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES);
	bus1_ioctl_array_free(ids, few);
	return r;
}

static int bus1_ioctl_slice_release(struct bus1_ioctl *ctx)
{
	u64 offset;

	if (get_user(offset, (u64 __user *)ctx->uarg))
		return -EFAULT;
	return bus1_message_release(ctx->peer, offset);
}

#ifdef CONFIG_COMPAT
/* Make native vectors of compat ones, in place: from the last to the first. */
static void bus1_ioctl_vecs_from_compat(struct iovec *vecs, size_t n)
{
	const struct compat_iovec *compat = (void *)vecs;
	struct compat_iovec vec;

	while (n-- > 0) {
		vec = compat[n];
		vecs[n].iov_base = compat_ptr(vec.iov_base);
		vecs[n].iov_len = vec.iov_len;
	}
}

static noinline int bus1_ioctl_vecs_copy_compat(struct iovec *vecs,
						const void __user *ptr,
						size_t n)
{
	if (copy_from_user(vecs, ptr, n * sizeof(struct compat_iovec)))
		return -EFAULT;
	bus1_ioctl_vecs_from_compat(vecs, n);
	return 0;
}
#else
static int bus1_ioctl_vecs_copy_compat(struct iovec *vecs,
				       const void __user *ptr, size_t n)
{
	return -EFAULT;
}
#endif

static inline int bus1_ioctl_vecs_copy(struct iovec *vecs,
				       const void __user *ptr, size_t n)
{
	const struct iovec __user *from = ptr;
	size_t i;

	if (in_compat_syscall())
		return bus1_ioctl_vecs_copy_compat(vecs, ptr, n);
	if (n > BUS1_IOCTL_INLINE)
		return copy_from_user(vecs, ptr, n * sizeof(*vecs)) ? -EFAULT : 0;
	for (i = 0; i < n; ++i) {
		if (get_user(vecs[i].iov_base, &from[i].iov_base) ||
		    get_user(vecs[i].iov_len, &from[i].iov_len))
			return -EFAULT;
	}
	return 0;
}

/*
 * Read the vectors. This is what import_iovec() does, but that shortens what is
 * too long.
 */
static int bus1_ioctl_vecs(const struct bus1_cmd_send *send,
			   struct bus1_ioctl_send *arrays)
{
	size_t i, n = send->n_vecs;
	struct iovec *vecs = arrays->few_vecs;
	void __user *ptr;
	int r;

	arrays->vecs = vecs;
	if (!n)
		return 0;
	r = bus1_ioctl_ptr(send->ptr_vecs, &ptr);
	if (r < 0)
		return r;
	if (n > BUS1_IOCTL_INLINE) {
		vecs = bus1_array_new(n, sizeof(*vecs));
		if (!vecs)
			return -ENOMEM;
		arrays->vecs = vecs;
	}
	r = bus1_ioctl_vecs_copy(vecs, ptr, n);
	if (r < 0)
		return r;

	for (i = 0; i < n; ++i) {
		if (vecs[i].iov_len > MAX_RW_COUNT - arrays->n_bytes)
			return -EMSGSIZE;
		if (!access_ok(vecs[i].iov_base, vecs[i].iov_len))
			return -EFAULT;
		arrays->n_bytes += vecs[i].iov_len;
	}
	return 0;
}

/* Read the arrays of a SEND. They are to be freed even if this fails. */
static int bus1_ioctl_send_read(const struct bus1_cmd_send *send,
				struct bus1_ioctl_send *arrays)
{
	int r;

	arrays->n_bytes = 0;
	arrays->dests = arrays->few_dests;
	arrays->vecs = arrays->few_vecs;
	arrays->handles = arrays->few_handles;
	arrays->fds = arrays->few_fds;

	r = bus1_ioctl_ids(send->ptr_destinations, send->n_destinations,
			   arrays->few_dests, &arrays->dests);
	if (r >= 0)
		r = bus1_ioctl_vecs(send, arrays);
	if (r >= 0)
		r = bus1_ioctl_ids(send->ptr_handles, send->n_handles,
				   arrays->few_handles, &arrays->handles);
	if (r >= 0)
		r = bus1_ioctl_fds(send->ptr_fds, send->n_fds, arrays->few_fds,
				   &arrays->fds);
	return r;
}

static void bus1_ioctl_send_free(struct bus1_ioctl_send *arrays)
{
	bus1_ioctl_array_free(arrays->fds, arrays->few_fds);
	bus1_ioctl_array_free(arrays->handles, arrays->few_handles);
	bus1_ioctl_array_free(arrays->vecs, arrays->few_vecs);
	bus1_ioctl_array_free(arrays->dests, arrays->few_dests);
}

/**
 * bus1_ioctl_send_check() - check the argument of a SEND
 * @send: the argument
 *
 * Context: Any.
 * Return: 0, -EINVAL, or -EMSGSIZE.
 */
int bus1_ioctl_send_check(const struct bus1_cmd_send *send)
{
	u32 max_handles = bus1_user_limit(BUS1_RESOURCE_HANDLES);

	if (send->flags & ~(BUS1_SEND_FLAG_CONTINUE | BUS1_SEND_FLAG_SEED))
		return -EINVAL;
	if (send->flags & BUS1_SEND_FLAG_SEED &&
	    (send->flags & BUS1_SEND_FLAG_CONTINUE || send->n_destinations))
		return -EINVAL;
	if (send->n_vecs > UIO_MAXIOV || send->n_fds > BUS1_FD_MAX ||
	    send->n_destinations > INT_MAX)
		return -EMSGSIZE;
	if (send->n_destinations > max_handles)
		return -EINVAL;
	if (send->n_handles > max(max_handles, BUS1_IOCTL_HANDLES_MAX))
		return -EMSGSIZE;
	return 0;
}

static int bus1_ioctl_send_errors(const struct bus1_send *send, u64 value)
{
	__s32 __user *errors;
	void __user *ptr;
	size_t i;
	int r;

	if (!value)
		return 0;
	r = bus1_ioctl_ptr(value, &ptr);
	if (r < 0)
		return r;
	errors = ptr;
	for (i = 0; i < send->n_dests; ++i) {
		if (put_user(send->dests[i].error, errors + i))
			return -EFAULT;
	}
	return 0;
}

/* One vector needs no array. */
static void bus1_ioctl_send_iter(struct iov_iter *iter,
				 const struct bus1_ioctl_send *arrays,
				 size_t n_vecs)
{
	const struct iovec *vecs = arrays->vecs;

	if (n_vecs == 1)
		iov_iter_ubuf(iter, ITER_SOURCE, vecs->iov_base, vecs->iov_len);
	else
		iov_iter_init(iter, ITER_SOURCE, vecs, n_vecs, arrays->n_bytes);
}

/* Do all of a SEND that can fail. Until it is committed nothing has happened. */
static int bus1_ioctl_send_stage(struct bus1_send *send, struct bus1_peer *peer,
				 const struct bus1_cmd_send *args,
				 const struct bus1_ioctl_send *arrays)
{
	struct bus1_send_params params = {
		.dests = arrays->dests,
		.n_dests = args->n_destinations,
		.handles = arrays->handles,
		.n_handles = args->n_handles,
		.fds = arrays->fds,
		.n_fds = args->n_fds,
		.n_bytes = arrays->n_bytes,
		.do_continue = args->flags & BUS1_SEND_FLAG_CONTINUE,
		.is_seed = args->flags & BUS1_SEND_FLAG_SEED,
	};
	struct iov_iter iter;
	int r;

	r = bus1_send_prepare(send, peer, &params);
	if (r >= 0)
		r = bus1_ioctl_send_errors(send, args->ptr_errors);
	if (r >= 0)
		r = bus1_send_verdict(send);
	if (r >= 0) {
		bus1_ioctl_send_iter(&iter, arrays, args->n_vecs);
		r = bus1_send_copy(send, &iter);
	}
	return r;
}

static int bus1_ioctl_send_arrays(struct bus1_peer *peer,
				  const struct bus1_cmd_send *args,
				  struct bus1_ioctl_send *arrays,
				  struct bus1_cmd_send_recv __user *uarg,
				  const struct bus1_cmd_send_recv *more)
{
	struct bus1_send send __uninitialized; /* bus1_send_prepare() fills it in */
	int r;

	r = bus1_ioctl_send_stage(&send, peer, args, arrays);
	if (r >= 0 && uarg)
		r = bus1_ioctl_send_recv_tell(uarg, more);
	if (r < 0)
		goto exit;
	r = bus1_send_commit(&send);
	if (r < 0 && uarg && bus1_ioctl_send_recv_untell(uarg, more))
		r = -EFAULT;
exit:
	bus1_send_deinit(&send);
	return r;
}

/**
 * bus1_ioctl_send_any() - send anything
 * @peer: sender
 * @args: what, and where to; checked
 * @uarg: argument of SEND_RECV, which is told that the message is sent; or NULL
 * @more: what it says
 *
 * Context: Process context, may sleep.
 * Return: 0, or a negative errno, see bus1(7).
 */
noinline __flatten int bus1_ioctl_send_any(struct bus1_peer *peer,
					   const struct bus1_cmd_send *args,
					   struct bus1_cmd_send_recv __user *uarg,
					   const struct bus1_cmd_send_recv *more)
{
	/* bus1_ioctl_send_read() fills in what is used of the arrays for a few */
	struct bus1_ioctl_send arrays __uninitialized;
	int r;

	r = bus1_ioctl_send_read(args, &arrays);
	if (r >= 0)
		r = bus1_ioctl_send_arrays(peer, args, &arrays, uarg, more);
	bus1_ioctl_send_free(&arrays);
	return r;
}

/**
 * bus1_ioctl_send_is_bytes() - ask whether a SEND is nothing but bytes to one node
 * @args: its argument, not checked
 *
 * Most are of this kind: there is nothing to check, and they need none of the rest.
 *
 * Context: Any.
 * Return: True if so.
 */
bool bus1_ioctl_send_is_bytes(const struct bus1_cmd_send *args)
{
	return args->n_destinations == 1 && args->n_vecs == 1 &&
	       !(args->flags | args->ptr_errors | args->n_handles | args->n_fds) &&
	       bus1_user_limit(BUS1_RESOURCE_HANDLES);
}

/* Read one vector. Where the payload is, and how long it is, is checked, too. */
static int bus1_ioctl_vec_get(u64 value, struct iovec *vec)
{
	const struct iovec __user *uvec;
	void __user *ptr;
	int r;

	r = bus1_ioctl_ptr(value, &ptr);
	if (r < 0)
		return r;
	if (in_compat_syscall()) {
		r = bus1_ioctl_vecs_copy_compat(vec, ptr, 1);
		if (r < 0)
			return r;
	} else {
		uvec = ptr;
		if (!user_read_access_begin(uvec, sizeof(*uvec)))
			return -EFAULT;
		unsafe_get_user(vec->iov_base, &uvec->iov_base, error);
		unsafe_get_user(vec->iov_len, &uvec->iov_len, error);
		user_read_access_end();
	}
	if (vec->iov_len > MAX_RW_COUNT)
		return -EMSGSIZE;
	return access_ok(vec->iov_base, vec->iov_len) ? 0 : -EFAULT;

error:
	user_read_access_end();
	return -EFAULT;
}

static int bus1_ioctl_send_bytes_stage(struct bus1_send_bytes *bytes,
				       struct bus1_peer *peer, u64 ptr_dest,
				       u64 ptr_vec)
{
	/* Both are filled in before they are used */
	struct iov_iter iter __uninitialized;
	struct iovec vec __uninitialized;
	void __user *ptr;
	u64 dest;
	int r;

	r = bus1_ioctl_ptr(ptr_dest, &ptr);
	if (r < 0)
		return r;
	if (get_user(dest, (u64 __user *)ptr))
		return -EFAULT;
	r = bus1_ioctl_vec_get(ptr_vec, &vec);
	if (r < 0)
		return r;

	iov_iter_ubuf(&iter, ITER_SOURCE, vec.iov_base, vec.iov_len);
	return bus1_send_bytes_prepare(bytes, peer, dest, &iter);
}

/**
 * bus1_ioctl_send_bytes() - send nothing but bytes to one node
 * @peer: sender
 * @ptr_dest: where the destination is, in user space
 * @ptr_vec: where the vector is
 * @uarg: argument of SEND_RECV, which is told that the message is sent; or NULL
 * @args: what it says
 *
 * Context: Process context, may sleep.
 * Return: 0, or a negative errno, see bus1(7).
 */
noinline __flatten int bus1_ioctl_send_bytes(struct bus1_peer *peer, u64 ptr_dest,
					     u64 ptr_vec,
					     struct bus1_cmd_send_recv __user *uarg,
					     const struct bus1_cmd_send_recv *args)
{
	struct bus1_send_bytes bytes;
	int r;

	r = bus1_ioctl_send_bytes_stage(&bytes, peer, ptr_dest, ptr_vec);
	if (r < 0)
		return r;
	if (uarg) {
		r = bus1_ioctl_send_recv_tell(uarg, args);
		if (r < 0) {
			bus1_send_bytes_abort(&bytes);
			return r;
		}
	}
	bus1_send_bytes_commit(&bytes);
	return 0;
}

static noinline int
bus1_ioctl_send_whole(struct bus1_peer *peer,
		      const struct bus1_cmd_send __user *uarg)
{
	struct bus1_cmd_send args __uninitialized; /* read as a whole */
	int r;

	if (copy_from_user(&args, uarg, sizeof(args)))
		return -EFAULT;
	r = bus1_ioctl_send_check(&args);
	if (r < 0)
		return r;
	return bus1_ioctl_send_any(peer, &args, NULL, NULL);
}

/*
 * Look at an argument: where destination and vector are, if it is nothing but bytes to
 * one node. That the last field can be read says that all of it can. If it is more, all
 * of it is read, and whether it still is does not matter then.
 */
static int bus1_ioctl_send(struct bus1_peer *peer,
			   const struct bus1_cmd_send __user *uarg)
{
	struct bus1_cmd_send args;

	/* There are machines that cannot read so much at once */
	if (!IS_ENABLED(CONFIG_64BIT))
		return bus1_ioctl_send_whole(peer, uarg);

	if (!user_read_access_begin(uarg, sizeof(*uarg)))
		return -EFAULT;
	unsafe_get_user(args.flags, &uarg->flags, error);
	unsafe_get_user(args.ptr_destinations, &uarg->ptr_destinations, error);
	unsafe_get_user(args.ptr_errors, &uarg->ptr_errors, error);
	unsafe_get_user(args.n_destinations, &uarg->n_destinations, error);
	unsafe_get_user(args.ptr_vecs, &uarg->ptr_vecs, error);
	unsafe_get_user(args.n_vecs, &uarg->n_vecs, error);
	unsafe_get_user(args.n_handles, &uarg->n_handles, error);
	unsafe_get_user(args.n_fds, &uarg->n_fds, error);
	user_read_access_end();

	if (bus1_ioctl_send_is_bytes(&args))
		return bus1_ioctl_send_bytes(peer, args.ptr_destinations,
					     args.ptr_vecs, NULL, NULL);
	return bus1_ioctl_send_whole(peer, uarg);

error:
	user_read_access_end();
	return -EFAULT;
}

/* Run a command, or say -ENOTTY if it is none. */
static int bus1_ioctl_run(struct bus1_ioctl *ctx, unsigned int cmd)
{
	switch (cmd) {
	case BUS1_CMD_PEER_QUERY:
		return bus1_ioctl_peer_query(ctx);
	case BUS1_CMD_PEER_RESET:
		return bus1_ioctl_peer_reset(ctx);
	case BUS1_CMD_HANDLE_RELEASE:
		return bus1_ioctl_handle_release(ctx);
	case BUS1_CMD_HANDLE_TRANSFER:
		return bus1_ioctl_handle_transfer(ctx);
	case BUS1_CMD_NODES_DESTROY:
		return bus1_ioctl_nodes_destroy(ctx);
	case BUS1_CMD_SLICE_RELEASE:
		return bus1_ioctl_slice_release(ctx);
	default:
		return -ENOTTY;
	}
}

/* Whether there is such a command: what is none is told so even after a disconnect. */
static bool bus1_ioctl_is_known(unsigned int cmd)
{
	switch (cmd) {
	case BUS1_CMD_PEER_QUERY:
	case BUS1_CMD_PEER_RESET:
	case BUS1_CMD_HANDLE_RELEASE:
	case BUS1_CMD_HANDLE_TRANSFER:
	case BUS1_CMD_NODES_DESTROY:
	case BUS1_CMD_SLICE_RELEASE:
	case BUS1_CMD_SEND:
	case BUS1_CMD_RECV:
	case BUS1_CMD_SEND_RECV:
		return true;
	default:
		return false;
	}
}

/* Nobody is told of a disconnect before it has happened. */
static noinline __cold int bus1_ioctl_failed(struct bus1_peer *peer,
					     unsigned int cmd,
					     struct bus1_peer *leaver, int r)
{
	/* No active reference is held any more */
	if (r == -ESHUTDOWN)
		r = bus1_peer_await_disconnect(leaver);
	if (r != -ENOTTY)
		trace_bus1_command_failed(peer, _IOC_NR(cmd), r);
	return r;
}

/* All but those that there are many of. */
static noinline int bus1_ioctl_other(struct bus1_peer *peer, unsigned int cmd,
				     void __user *uarg)
{
	struct bus1_ioctl ctx = {
		.peer = peer,
		.uarg = uarg,
	};
	int r;

	r = bus1_ioctl_run(&ctx, cmd);
	bus1_peer_release(peer);
	if (r < 0)
		r = bus1_ioctl_failed(peer, cmd, ctx.refused ?
				      bus1_file_peer(ctx.refused) : peer, r);
	if (ctx.refused)
		fput(ctx.refused);
	return r;
}

/**
 * bus1_ioctl() - run a command
 * @peer: peer it is issued on
 * @file: its file
 * @cmd: the command
 * @arg: address of its argument; the argument itself for PEER_DISCONNECT
 *
 * Context: Process context, may sleep.
 * Return: 0, or a negative errno, see bus1(7).
 */
long bus1_ioctl(struct bus1_peer *peer, struct file *file, unsigned int cmd,
		unsigned long arg)
{
	void __user *uarg = (void __user *)arg;
	int r;

	if (cmd == BUS1_CMD_PEER_DISCONNECT) {
		if (arg && bus1_active_is_active(&peer->active))
			return -EINVAL;
		return bus1_peer_disconnect(peer);
	}

	if (!bus1_active_acquire(&peer->active))
		return bus1_ioctl_is_known(cmd) ?
			bus1_peer_await_disconnect(peer) : -ENOTTY;
	if (cmd == BUS1_CMD_RECV)
		r = bus1_ioctl_recv(peer, file, uarg);
	else if (cmd == BUS1_CMD_SEND)
		r = bus1_ioctl_send(peer, uarg);
	else if (cmd == BUS1_CMD_SEND_RECV)
		r = bus1_ioctl_send_recv(peer, file, uarg);
	else
		return bus1_ioctl_other(peer, cmd, uarg);
	bus1_peer_release(peer);
	return unlikely(r < 0) ? bus1_ioctl_failed(peer, cmd, peer, r) : 0;
}

/* The ABI: what these say is settled, most of it since 2016. */
static_assert(sizeof(struct bus1_cmd_peer_reset) == 32);
static_assert(offsetof(struct bus1_cmd_peer_reset, flags) == 0);
static_assert(offsetof(struct bus1_cmd_peer_reset, peer_flags) == 8);
static_assert(offsetof(struct bus1_cmd_peer_reset, max_slices) == 16);
static_assert(offsetof(struct bus1_cmd_peer_reset, max_handles) == 20);
static_assert(offsetof(struct bus1_cmd_peer_reset, max_inflight_bytes) == 24);
static_assert(offsetof(struct bus1_cmd_peer_reset, max_inflight_fds) == 28);
static_assert(sizeof(struct bus1_cmd_handle_transfer) == 32);
static_assert(offsetof(struct bus1_cmd_handle_transfer, flags) == 0);
static_assert(offsetof(struct bus1_cmd_handle_transfer, src_handle) == 8);
static_assert(offsetof(struct bus1_cmd_handle_transfer, dst_fd) == 16);
static_assert(offsetof(struct bus1_cmd_handle_transfer, dst_handle) == 24);
static_assert(sizeof(struct bus1_cmd_nodes_destroy) == 24);
static_assert(offsetof(struct bus1_cmd_nodes_destroy, flags) == 0);
static_assert(offsetof(struct bus1_cmd_nodes_destroy, ptr_nodes) == 8);
static_assert(offsetof(struct bus1_cmd_nodes_destroy, n_nodes) == 16);
static_assert(sizeof(struct bus1_cmd_send) == 80);
static_assert(offsetof(struct bus1_cmd_send, flags) == 0);
static_assert(offsetof(struct bus1_cmd_send, ptr_destinations) == 8);
static_assert(offsetof(struct bus1_cmd_send, ptr_errors) == 16);
static_assert(offsetof(struct bus1_cmd_send, n_destinations) == 24);
static_assert(offsetof(struct bus1_cmd_send, ptr_vecs) == 32);
static_assert(offsetof(struct bus1_cmd_send, n_vecs) == 40);
static_assert(offsetof(struct bus1_cmd_send, ptr_handles) == 48);
static_assert(offsetof(struct bus1_cmd_send, n_handles) == 56);
static_assert(offsetof(struct bus1_cmd_send, ptr_fds) == 64);
static_assert(offsetof(struct bus1_cmd_send, n_fds) == 72);
static_assert(sizeof(struct bus1_cmd_recv) == 72);
static_assert(offsetof(struct bus1_cmd_recv, flags) == 0);
static_assert(offsetof(struct bus1_cmd_recv, max_offset) == 8);
static_assert(offsetof(struct bus1_cmd_recv, msg) == 16);
static_assert(offsetof(struct bus1_cmd_recv, msg.type) == 16);
static_assert(offsetof(struct bus1_cmd_recv, msg.flags) == 24);
static_assert(offsetof(struct bus1_cmd_recv, msg.destination) == 32);
static_assert(offsetof(struct bus1_cmd_recv, msg.offset) == 40);
static_assert(offsetof(struct bus1_cmd_recv, msg.n_bytes) == 48);
static_assert(offsetof(struct bus1_cmd_recv, msg.n_handles) == 56);
static_assert(offsetof(struct bus1_cmd_recv, msg.n_fds) == 64);
static_assert(sizeof(struct bus1_msg) == 56);
static_assert(offsetof(struct bus1_msg, type) == 0);
static_assert(offsetof(struct bus1_msg, flags) == 8);
static_assert(offsetof(struct bus1_msg, destination) == 16);
static_assert(offsetof(struct bus1_msg, offset) == 24);
static_assert(offsetof(struct bus1_msg, n_bytes) == 32);
static_assert(offsetof(struct bus1_msg, n_handles) == 40);
static_assert(offsetof(struct bus1_msg, n_fds) == 48);
static_assert(sizeof(struct bus1_cmd_send_recv) == 144);
static_assert(offsetof(struct bus1_cmd_send_recv, flags) == 0);
static_assert(offsetof(struct bus1_cmd_send_recv, ptr_slices) == 8);
static_assert(offsetof(struct bus1_cmd_send_recv, n_slices) == 16);
static_assert(offsetof(struct bus1_cmd_send_recv, ptr_messages) == 24);
static_assert(offsetof(struct bus1_cmd_send_recv, n_messages) == 32);
static_assert(offsetof(struct bus1_cmd_send_recv, n_received) == 40);
static_assert(offsetof(struct bus1_cmd_send_recv, max_offset) == 48);
static_assert(offsetof(struct bus1_cmd_send_recv, timeout) == 56);
static_assert(offsetof(struct bus1_cmd_send_recv, send) == 64);
static_assert(BUS1_CMD_PEER_DISCONNECT == 0xc0089600);
static_assert(BUS1_CMD_PEER_QUERY == 0xc0209601);
static_assert(BUS1_CMD_PEER_RESET == 0xc0209602);
static_assert(BUS1_CMD_HANDLE_RELEASE == 0xc0089610);
static_assert(BUS1_CMD_HANDLE_TRANSFER == 0xc0209611);
static_assert(BUS1_CMD_NODES_DESTROY == 0xc0189620);
static_assert(BUS1_CMD_SLICE_RELEASE == 0xc0089630);
static_assert(BUS1_CMD_SEND == 0xc0509640);
static_assert(BUS1_CMD_RECV == 0xc0489650);
static_assert(BUS1_CMD_SEND_RECV == 0xc0909651);
