# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# What all scripts of the test bed share: messages, the cache, its locks, and
# running a command inside the Debian root. Source it; it only defines things.

TOP=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
BED=$TOP/scripts/testbed
CACHE=${PRECOPY_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/precopy-vfio-pci}

# How many finished entries of one kind the cache keeps.
KEEP=2
# Raised when the scripts change what an entry holds.
CACHE_FORMAT=1
SUITE=trixie
# The other release on which packages are built
OLDER=bookworm

say()  { printf '%s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die()  { printf 'error: %s\n' "$*" >&2; exit 1; }

# The comment block at the top of a script is its help text.
usage() {
	awk 'NR > 2 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
}

minutes() {
	if (($1 < 100)); then
		printf '%d s' "$1"
	else
		printf '%d min %d s' $(($1 / 60)) $(($1 % 60))
	fi
}

hash_of() {
	sha256sum | cut -c1-12
}

need_root() {
	((EUID == 0)) || die "the test bed needs root (it uses chroot and mount namespaces): run it with sudo"
}

need_tools() {
	local t
	for t in flock setpriv unshare chroot; do
		command -v $t >/dev/null || die "'$t' is missing: install util-linux and coreutils"
	done
	unshare -m true 2>/dev/null ||
		die "this place does not allow mount namespaces (unshare -m failed); in a container, run it privileged"
}

cache_init() {
	mkdir -p "$CACHE"/{locks,logs,runs,times} || die "cannot create the cache directory $CACHE"
	CACHE=$(cd "$CACHE" && pwd -P)
}

# need_space DIR MIB WHAT
need_space() {
	local free
	free=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
	((free >= $2)) ||
		die "not enough space for $3: it needs $2 MiB in $1, which has $free MiB free. Set PRECOPY_CACHE to a larger place, or run 'make cache-clean'."
}

# ---- progress ---------------------------------------------------------------
# STEP and STEPS number the visible stages of one command.
STEP=0
# shellcheck disable=SC2034
STEPS=${STEPS:-0}

step_begin() {		# TITLE TIME-KEY GUESSED-SECONDS
	local usual
	STEP=$((STEP + 1))
	if usual=$(cat "$CACHE/times/$2" 2>/dev/null) && [[ $usual =~ ^[0-9]+$ ]]; then
		usual="took $(minutes "$usual") here last time"
	else
		usual="usually about $(minutes "$3")"
	fi
	((STEPS >= STEP)) || STEPS=$STEP
	say "[$STEP/$STEPS] $1 ($usual)"
}

# Tells a person that a long stage is alive, and ends it when this script was
# killed. Runs until killed itself.
ticker() {	# PROCESS
	local t0=$SECONDS next=60
	while sleep 1; do
		kill -0 $$ 2>/dev/null || { kill -KILL "$1"; exit; }
		if [ -t 2 ]; then
			printf '\r      %s ' "$(minutes $((SECONDS - t0)))" >&2
		elif ((SECONDS - t0 >= next)); then
			say "      ... $(minutes $((SECONDS - t0)))"
			next=$((next + 60))
		fi
	done
}

# ---- the cache --------------------------------------------------------------
# An entry is a directory KIND-KEY. It is made under a temporary name and
# renamed when complete, so what stands under its own name can be trusted.
# Users hold a shared lock on its "complete" file, so it is not pruned away
# under them.

# entry_use KIND KEY: lock an existing complete entry, or fail.
entry_use() {
	local c=$CACHE/$1-$2/complete fd
	[ -f "$c" ] || return 1
	exec {fd}<"$c" || return 1
	flock -s "$fd"
	[ -f "$c" ] || { exec {fd}<&-; return 1; }
	touch -c "$c"
}

entry_remove() {	# DIR, which nobody uses
	rm -rf --one-file-system -- "$1"
}

entry_prune() {		# KIND
	local c d n=0 fd
	while IFS= read -r c; do
		n=$((n + 1))
		((n > KEEP)) || continue
		d=${c%/complete}
		exec {fd}<"$c" || continue
		if flock -n -x "$fd"; then
			mv "$d" "$CACHE/tmp.old.$$.$n" && entry_remove "$CACHE/tmp.old.$$.$n"
		fi
		exec {fd}<&-
	done < <(ls -t "$CACHE/$1"-*/complete 2>/dev/null)
}

# Remove what killed runs left behind: a temporary name carries the id of the
# process that made it.
cache_sweep() {
	local d pid
	for d in "$CACHE"/tmp.* "$CACHE"/runs/*; do
		[ -e "$d" ] || continue
		pid=${d##*/}; pid=${pid#tmp.old.}; pid=${pid#tmp.}; pid=${pid%%.*}
		[[ $pid =~ ^[0-9]+$ ]] || continue
		kill -0 "$pid" 2>/dev/null || entry_remove "$d"
	done
	# A build directory's date is that of its last use.
	find "$CACHE/build" -mindepth 1 -maxdepth 1 -mtime +14 -exec rm -rf {} + 2>/dev/null || true
	find "$CACHE/logs" -mindepth 1 -maxdepth 1 -mtime +14 -exec rm -rf {} + 2>/dev/null || true
}

# entry_make KIND KEY MIB SECONDS TITLE FUNCTION: have the entry, making it if
# need be by "FUNCTION TEMPORARY-DIR". Sets ENTRY to its directory.
entry_make() {
	local kind=$1 key=$2 mib=$3 guess=$4 title=$5 make=$6
	local tmp=$CACHE/tmp.$$.$kind log=$CACHE/logs/$kind-$key.log lock t0=$SECONDS tick rc=0

	ENTRY=$CACHE/$kind-$key
	if entry_use "$kind" "$key"; then
		STEP=$((STEP + 1))
		return 0
	fi
	exec {lock}>"$CACHE/locks/$kind-$key"
	if ! flock -n -x "$lock"; then
		say "      waiting for another run which is at: $title"
		flock -x "$lock"
	fi
	if entry_use "$kind" "$key"; then
		exec {lock}>&-
		STEP=$((STEP + 1))
		return 0
	fi
	need_space "$CACHE" "$mib" "$title"
	step_begin "$title" "$kind" "$guess"
	entry_remove "$tmp"
	mkdir "$tmp"
	t0=$SECONDS
	# In the background, so that a signal to this shell is acted upon at once.
	# Neither process may keep the lock when this one dies.
	( exec {lock}>&-; set -e; "$make" "$tmp" ) >"$log" 2>&1 </dev/null & MAKER=$!
	( exec {lock}>&-; ticker $MAKER ) & tick=$!
	wait $MAKER || rc=$?
	MAKER=
	kill $tick; wait $tick 2>/dev/null || true
	[ -t 2 ] && printf '\r                    \r' >&2
	if ((rc)); then
		entry_remove "$tmp"
		say "---- the last lines of $log"
		tail -n 25 "$log" >&2
		say "----"
		die "$title failed after $(minutes $((SECONDS - t0)))"
	fi
	# What is about to be trusted for weeks had better be on the disk.
	sync -f "$tmp"
	: >"$tmp/complete"
	mv -T "$tmp" "$ENTRY"
	echo $((SECONDS - t0)) >"$CACHE/times/$kind"
	entry_use "$kind" "$key"
	exec {lock}>&-
	entry_prune "$kind"
	say "      done in $(minutes $((SECONDS - t0)))"
}

# ---- the Debian root --------------------------------------------------------
# enter_root [-b SRC:DST] [-r SRC:DST] [-p] -- COMMAND...
# Runs COMMAND inside the root with SRC bound at DST, which is below /bed, or
# is /precopy; -r binds read-only; -p adds a process namespace, so that nothing
# which COMMAND started outlives it; -x replaces this shell, so that its process
# id becomes COMMAND's. The root itself is read-only.
enter_root() {
	local args=() ns=(-m --propagation private) x=
	while [ "$1" != -- ]; do
		case $1 in
		-p) ns+=(-p -f --kill-child); shift ;;
		-x) x="exec"; shift ;;
		*)  args+=("$1" "$2"); shift 2 ;;
		esac
	done
	$x setpriv --pdeathsig KILL unshare "${ns[@]}" "$BED/enter-root" "$ROOT" "${args[@]}" "$@"
}

# ---- what the bed consists of -----------------------------------------------
# A script without its comments: rewording one makes no cache entry stale.
code_of() {
	grep -v -e '^[[:space:]]*#' -e '^$' "$1"
}

package_list() {
	grep -v -e '^#' -e '^$' "$BED/packages"
}

root_key() {
	{ echo $CACHE_FORMAT $SUITE; package_list; code_of "$BED/make-root"; } | hash_of
}

# The help texts of our Kconfig do not change a kernel.
kconfig_essence() {
	awk '/^[ \t]*help[ \t]*$/ { help = 1; next }
	     /^[^ \t#]/ { help = 0 }
	     /^\t[^ \t]/ && help { next }
	     !help && !/^#/ && NF' "$TOP/Kconfig" "$TOP/drivers/vfio/pci/precopy/Kconfig"
}

package_version() {	# PATTERN, of the package's name
	awk -v RS= -v p="$1" '$0 ~ "^Package: " p "\n" { if (match($0, /\nVersion: [^\n]*/))
		print substr($0, RSTART + 10, RLENGTH - 10) }' "$ROOT/var/lib/dpkg/status" | sort -V | tail -1
}

source_version() {
	package_version 'linux-source-[0-9.]+'
}

distro_key() {
	{ echo $CACHE_FORMAT $SUITE; grep -v -e '^#' -e '^$' "$BED/packages-distro"; code_of "$BED/make-distro"; } | hash_of
}

older_key() {
	{ echo $CACHE_FORMAT $OLDER; code_of "$BED/make-older"; } | hash_of
}

src_key() {
	{ echo $CACHE_FORMAT; source_version; kconfig_essence; grep ^hook "$TOP/scripts/apply-overlay"; } | hash_of
}

kernel_fragments() {	# FLAVOUR
	case $1 in
	l1|kvm) echo l1.config ;;
	debug) echo l1.config debug.config ;;
	kcsan) echo l1.config kcsan.config ;;
	clang) echo l1.config ;;
	*)     die "unknown kernel '$1': l1, kvm, debug, kcsan or clang" ;;
	esac
}

# What a kernel's modules are built with beside its own options, as lines of NAME=VALUE.
# kbuild compiles anew what was built with other flags.
module_env() {	# FLAVOUR
	case $1 in
	debug) echo GCOV_PROFILE=y ;;
	l1|kvm|kcsan) echo "KCFLAGS=-femit-struct-debug-detailed=any -fvar-tracking" ;;
	esac
}

# The patches of a kernel, as files of the checkout, a line each. What is only compiled with
# has none.
kernel_patches() {	# FLAVOUR
	case $1 in
	kvm) (cd "$TOP" && printf '%s\n' scripts/testbed/patches/*.patch contrib/kvm/*.patch) ;;
	l1|debug|kcsan) (cd "$TOP" && printf '%s\n' scripts/testbed/patches/*.patch) ;;
	esac
}

# What a patch changes: not its text.
patch_change() {	# FILE
	sed '1,/^---$/d' "$TOP/$1" | grep '^[-+@]'
}

kernel_key() {	# FLAVOUR
	local f
	{ echo $CACHE_FORMAT "$1"; src_key; package_version 'gcc-[0-9]+'; package_version 'clang-[0-9]+'
	  package_version binutils; code_of "$BED/make-kernel"
	  kernel_patches "$1" | while read -r f; do patch_change "$f"; done
	  [ -z "$(kernel_patches "$1")" ] || code_of "$BED/patched-source"
	  for f in $(kernel_fragments "$1"); do grep ^CONFIG "$BED/$f"; done; } | hash_of
}

# What the driver is compiled against for other processors, and never run on.
cross_key() {	# arm64|powerpc
	{ echo $CACHE_FORMAT "$1"; src_key; package_version 'gcc-.*-linux-gnu'; package_version binutils
	  code_of "$BED/make-cross"; grep -h ^CONFIG "$BED/cross.config" "$BED/$1.config"; } | hash_of
}

# As much of the kernel's pristine source as "make series" touches.
base_key() {
	{ echo $CACHE_FORMAT; source_version; echo "$BASE_PATHS"; } | hash_of
}

BASE_PATHS='Kconfig Makefile MAINTAINERS drivers/vfio drivers/iommu/Kconfig drivers/iommu/Makefile drivers/pci/controller/Kconfig drivers/pci/controller/Makefile Documentation/driver-api Documentation/userspace-api/ioctl Documentation/ABI/testing include/uapi/linux tools/testing/selftests/vfio'

# The checkout's files, without what was built in it.
checkout_files() {
	git -C "$TOP" -c safe.directory='*' ls-files --cached --others --exclude-standard 2>/dev/null ||
		(cd "$TOP" && find . -name .git -prune -o -type f ! -name '*.[oad]' -print | sed 's|^\./||')
}

# The one thing that the host must have.
need_mmdebstrap() {
	local log=$CACHE/logs/host-packages.log
	command -v mmdebstrap >/dev/null && return
	command -v apt-get >/dev/null ||
		die "mmdebstrap is missing, and this host has no apt-get to install it with: install mmdebstrap and Debian's archive keyring"
	say "      installing mmdebstrap on this host, with apt-get"
	if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
		mmdebstrap debian-archive-keyring; } >"$log" 2>&1 </dev/null; then
		tail -n 10 "$log" >&2
		die "mmdebstrap cannot be installed: is the network up? (whole log: $log)"
	fi
}

make_root() {
	setpriv --pdeathsig KILL unshare -m -p -f --kill-child --mount-proc \
		"$BED/make-root" "$1" "$SUITE" "$BED/packages"
}

make_distro() {
	setpriv --pdeathsig KILL unshare -m -p -f --kill-child --mount-proc \
		"$BED/make-distro" "$1" "$SUITE" "$BED/packages-distro"
}

make_older() {
	setpriv --pdeathsig KILL unshare -m -p -f --kill-child --mount-proc \
		"$BED/make-older" "$1" "$OLDER"
}

make_src() {
	local tar
	mkdir "$1/tree"
	tar=$(printf '%s\n' "$ROOT"/usr/src/linux-source-[0-9]*.tar.xz | sort -V | tail -1)
	enter_root -p -r "$ROOT/usr/src:/bed/tar" -b "$1/tree:/bed/src" -- \
		tar -C /bed/src --strip-components=1 -xf "/bed/tar/${tar##*/}"
	"$TOP/scripts/apply-overlay" --kconfig-only "$1/tree"
}

make_base() {
	local tar path=()
	mkdir "$1/tree"
	tar=$(printf '%s\n' "$ROOT"/usr/src/linux-source-[0-9]*.tar.xz | sort -V | tail -1)
	read -ra path <<<"$BASE_PATHS"
	enter_root -p -r "$ROOT/usr/src:/bed/tar" -b "$1/tree:/bed/base" -- \
		tar -C /bed/base --strip-components=1 -xf "/bed/tar/${tar##*/}" "${path[@]/#/$(basename "$tar" .tar.xz)/}"
}

make_cross() {
	mkdir "$1/build"
	enter_root -p -r "$SRC:/bed/src" -b "$1/build:/bed/kernel" -r "$TOP:/precopy" -- \
		/precopy/scripts/testbed/make-cross "$FLAVOUR" cross.config "$FLAVOUR.config"
}

make_kernel() {
	local patched=()
	mkdir "$1/build"
	mapfile -t patched < <(kernel_patches "$FLAVOUR")
	[ "${#patched[@]}" = 0 ] || patched=(/precopy/scripts/testbed/patched-source "${patched[@]}" --)
	# shellcheck disable=SC2046
	enter_root -p -r "$SRC:/bed/src" -b "$1/build:/bed/kernel" -r "$TOP:/precopy" -- \
		"${patched[@]}" /precopy/scripts/testbed/make-kernel "$FLAVOUR" $(kernel_fragments "$FLAVOUR")
}

# bed_need root|src|base|l1|kvm|debug|kcsan|clang|arm64|powerpc|distro|release|older ...: make
# what is missing; sets ROOT, SRC, BASE, DISTRO, OLDER_ROOT, and KERNEL_DIR to the last kernel named.
bed_need() {
	local want guess
	need_root
	need_tools
	cache_init
	cache_sweep
	for want in "$@"; do
		case $want in
		root)
			[ -f "$CACHE/root-$(root_key)/complete" ] || need_mmdebstrap
			entry_make root "$(root_key)" 2500 90 "making the Debian $SUITE root (toolchain, QEMU, kernel source)" make_root
			ROOT=$ENTRY/tree ;;
		src)
			entry_make src "$(src_key)" 2500 30 "unpacking the kernel source $(source_version)" make_src
			SRC=$ENTRY/tree ;;
		l1|kvm|debug|kcsan|clang)
			FLAVOUR=$want
			case $want in l1|kvm) guess=400 ;; debug|kcsan) guess=700 ;; clang) guess=120 ;; esac
			entry_make "kernel.$want" "$(kernel_key "$want")" 3000 $guess "building the '$want' kernel $(source_version)" make_kernel
			# shellcheck disable=SC2034
			KERNEL_DIR=$ENTRY/build ;;
		distro|release)
			[ -f "$CACHE/distro-$(distro_key)/complete" ] || need_mmdebstrap
			entry_make distro "$(distro_key)" 1500 180 "making a clean Debian $SUITE root, with the distribution's kernels" make_distro
			# shellcheck disable=SC2034
			DISTRO=$ENTRY/tree KERNEL_DIR=$ENTRY/build
			# shellcheck disable=SC2034
			[ "$want" = distro ] || KERNEL_DIR=$ENTRY/release/build ;;
		older)
			[ -f "$CACHE/older-$(older_key)/complete" ] || need_mmdebstrap
			entry_make older "$(older_key)" 600 60 "making a Debian $OLDER root, to build packages in" make_older
			# shellcheck disable=SC2034
			OLDER_ROOT=$ENTRY/tree ;;
		base)
			entry_make base "$(base_key)" 100 20 "unpacking what the series touches of $(source_version)" make_base
			# shellcheck disable=SC2034
			BASE=$ENTRY/tree ;;
		arm64|powerpc)
			FLAVOUR=$want
			entry_make "kernel.$want" "$(cross_key "$want")" 200 60 "preparing the source for $want" make_cross
			# shellcheck disable=SC2034
			KERNEL_DIR=$ENTRY/build ;;
		*)
			die "bed_need: unknown '$want'" ;;
		esac
	done
}

# A child that is at work must not be orphaned by a signal to the shell.
MAKER=
bed_abort() {
	trap - EXIT INT TERM HUP
	[ -z "$MAKER" ] || kill -KILL "$MAKER" 2>/dev/null || true
	say ""
	say "interrupted"
	exit 130
}
