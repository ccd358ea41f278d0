#compdef vfio-migrate
# SPDX-License-Identifier: GPL-2.0-only
#
# zsh completion for vfio-migrate; to be installed as _vfio-migrate

_vfio_migrate_devices()
{
	local -a devices

	# Those that have a VFIO driver
	devices=(/sys/bus/pci/devices/*/vfio-dev(N:h:t))
	_wanted devices expl 'device' compadd -a devices
}

_vfio_migrate()
{
	local curcontext=$curcontext state line expl
	local -a commands common open source keep device
	local -i end

	commands=(
		'list:list the devices that are bound to a VFIO driver'
		'info:print what a device can do, or what a snapshot holds'
		'check:say whether a device can be moved to another'
		'save:write the state of a device to a file'
		'load:read such a file into a device'
		'send:move a device to another host'
		'receive:wait for a source'
		'move:move a device to another one of this host'
		'run:run a device that was left stopped'
	)
	common=(
		'--json[results and failures as JSON]'
		'(-v --verbose)'{-q,--quiet}'[print errors only]'
		'(-q --quiet)'{-v,--verbose}'[print what is tried and done]'
		'(-)'{-h,--help}'[print help]'
		'(-)'{-V,--version}'[print the version]'
	)
	open=(
		'--iommu[how to open the device]:how:(auto type1 iommufd)'
		'--vf-token[the VF token of the physical function]:UUID: '
	)
	source=(
		'*--fill-region[fill a region of the source first]:region=file:_files'
		'--optimize[when to stop the source]:goal:(downtime total-time)'
		'--max-downtime[give up rather than exceed it]:milliseconds: '
		'--stop-copy[stop the source at once]'
		'--bandwidth[send at most so many bytes a second]:rate, such as 100M: '
	)
	keep=(
		'--hold[then keep the device open until Ctrl-C]'
		'--verify[only see whether the device accepts it]'
		'*--dump-region[then copy a region to a file]:region=file:_files'
	)
	device=(':device:_vfio_migrate_devices')

	_arguments -C '(-)'{-h,--help}'[print help]' '(-)'{-V,--version}'[print the version]' \
		':command:->command' '*::argument:->argument'
	case $state in
	command)
		_describe command commands
		return ;;
	argument) ;;
	*)	return ;;
	esac
	# Behind -- is a command with arguments of its own
	end=${words[(i)--]}
	if (( end < CURRENT )); then
		shift $end words
		(( CURRENT -= end ))
		_normal
		return
	fi
	case $line[1] in
	list)
		_arguments $common ;;
	info)
		_arguments $common $open '(-i --input)'{-i,--input}'[the snapshot to read]:file:_files' $device ;;
	check)
		_arguments $common $open $device $device ;;
	save)
		_arguments $common $open $source '(-o --output)'{-o,--output}'[where to save to]:file:_files' \
			'*--dump-region[then copy a region to a file]:region=file:_files' $device ;;
	load)
		_arguments $common $open $keep '(-i --input)'{-i,--input}'[the snapshot to read]:file:_files' $device ;;
	send)
		_arguments $common $open $source '--to[where the other side listens]:address: ' \
			'--timeout[how long the other side may be silent]:seconds: ' \
			'--ack-timeout[how long the target may take to start]:seconds: ' \
			'*--dump-region[then copy a region to a file]:region=file:_files' $device ;;
	receive)
		_arguments $common $open $keep '--listen[where to wait for a source]:address: ' \
			'--timeout[how long the other side may be silent]:seconds: ' \
			'--accept-timeout[how long to wait for a source]:seconds: ' $device ;;
	move)
		_arguments $common $open $source $keep \
			'--timeout[how long the other end may be silent]:seconds: ' \
			'--ack-timeout[how long the target may take to start]:seconds: ' $device $device ;;
	run)
		_arguments $common '--reset[reset a device that cannot be run otherwise]' ':fd\:N: ' ;;
	esac
}

_vfio_migrate "$@"
