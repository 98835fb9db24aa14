#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# kmake.sh NAME ARGUMENT...
#
# Run make in the build directory of a kernel of the table `kernels`, with the
# compiler of this row of the table, where the tools of this kernel run.

. "$(dirname "$0")/lib.sh"

name=${1:?}
shift

kernel=$("$here/kernel.sh" "$name")
traits "$name"
compiler='' suite=''
[[ $name == */* ]] || row "$name"

flags=() packages=(make gcc gcc-12 binutils libc6-dev kmod libelf1 libssl3 zlib1g pahole xz-utils)
[[ $name != um* ]] || flags+=(ARCH=um)
if [ "$arch" = arm64 ]; then
	flags+=(ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- DEB_HOST_ARCH=arm64
		DEB_BUILD_ARCH=amd64 DEB_HOST_GNU_TYPE=aarch64-linux-gnu)
fi
case $compiler in
clang-*)
	packages+=("$compiler" "lld-${compiler#*-}" "llvm-${compiler#*-}")
	# CC, too: Debian's headers set it, after LLVM has been looked at. Their
	# configuration is that of gcc, with options that clang does not know. To list
	# what ftrace patches is then for objtool, and to leave it as it is.
	flags+=("LLVM=-${compiler#*-}" "CC=$compiler" CONFIG_CC_IS_GCC= CONFIG_GCC_VERSION=0
		CONFIG_CC_IS_CLANG=y "CONFIG_CLANG_VERSION=${compiler#*-}0000"
		CONFIG_CC_IMPLICIT_FALLTHROUGH=-Wimplicit-fallthrough
		CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=
		CONFIG_UBSAN_BOUNDS_STRICT= CONFIG_UBSAN_ARRAY_BOUNDS=y
		CONFIG_FTRACE_MCOUNT_USE_CC= CONFIG_FTRACE_MCOUNT_USE_OBJTOOL=y
		CONFIG_HAVE_OBJTOOL_NOP_MCOUNT= "KCFLAGS=-include $here/clang.h")
	;;
gcc-*)
	packages+=("$compiler")
	flags+=("CC=$compiler")
	;;
esac
# A kernel that clang has built: its modules, too.
toolchain "$name"

# Other kernels need another system.
root=${suite%-backports}
[[ -z $root || $compiler != clang-* ]] || root+=-clang
[ "$arch" = amd64 ] || root=${root:-bookworm}-cross
if [ -n "$root" ]; then
	in_root "$("$here/root.sh" "$root")" make -C "$kernel/build" "${flags[@]}" "$@"
else
	need "${packages[@]}"
	make -C "$kernel/build" "${flags[@]}" "$@"
fi
