# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# bash completion for vfio-migrate

_vfio_migrate_devices()
{
	local device

	# Devices that are bound to a VFIO driver
	for device in /sys/bus/pci/devices/*; do
		[ -d "$device/vfio-dev" ] && printf '%s\n' "${device##*/}"
	done
}

# The options of command $1
_vfio_migrate_options()
{
	local keep=(--hold --verify --dump-region --)
	local source=(--fill-region --optimize --max-downtime --stop-copy --bandwidth)

	printf '%s\n' --json --quiet --verbose --help --version
	case $1 in
	list|run) ;;
	*)       printf '%s\n' --iommu --vf-token ;;
	esac
	case $1 in
	info)    printf '%s\n' --input ;;
	save)    printf '%s\n' --output --dump-region "${source[@]}" ;;
	load)    printf '%s\n' --input "${keep[@]}" ;;
	send)    printf '%s\n' --to --timeout --ack-timeout --dump-region "${source[@]}" ;;
	receive) printf '%s\n' --listen --timeout --accept-timeout "${keep[@]}" ;;
	run)     echo --reset ;;
	move)    printf '%s\n' --timeout --ack-timeout "${source[@]}" "${keep[@]}" ;;
	esac
}

# Words from standard input that begin with $1
_vfio_migrate_reply()
{
	# Addresses have colons, at which bash breaks words
	mapfile -t COMPREPLY < <(compgen -W "$(cat)" -- "$1")
	! declare -F __ltrim_colon_completions >/dev/null || __ltrim_colon_completions "$1"
	return 0
}

_vfio_migrate()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} i

	if declare -F _get_comp_words_by_ref >/dev/null; then
		_get_comp_words_by_ref -n : cur prev
	fi
	for ((i = 2; i < COMP_CWORD; i++)); do
		[ "${COMP_WORDS[i]}" != -- ] || { compopt -o default; return; }
	done
	case $prev in
	--optimize)  _vfio_migrate_reply "$cur" <<<'downtime total-time'; return ;;
	--iommu)     _vfio_migrate_reply "$cur" <<<'auto type1 iommufd'; return ;;
	-o|--output|-i|--input|--fill-region|--dump-region)
		compopt -o default; return ;;
	--to|--listen|--timeout|--ack-timeout|--accept-timeout|--max-downtime|--bandwidth|--vf-token)
		return ;;
	esac
	if ((COMP_CWORD == 1)); then
		_vfio_migrate_reply "$cur" <<<'list info check save load send receive move run --help --version'
	elif [[ $cur == -* ]]; then
		_vfio_migrate_reply "$cur" < <(_vfio_migrate_options "${COMP_WORDS[1]}")
	else
		_vfio_migrate_reply "$cur" < <(_vfio_migrate_devices)
	fi
}

complete -F _vfio_migrate vfio-migrate
