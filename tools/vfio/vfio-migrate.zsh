#compdef vfio-migrate
# SPDX-License-Identifier: GPL-2.0-only
#
# zsh completion for vfio-migrate; to be installed as _vfio-migrate

_vfio_migrate_devices()
{
	local -a devices

	# Devices that are bound to a VFIO driver
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
		'info:describe a device or a snapshot'
		'check:print whether a device can be moved to another'
		'save:write the state of a device to a file'
		'load:load a saved state into a device'
		'send:move a device to another host'
		'receive:receive the state of a device from another host'
		'move:move a device to another device of this host'
		'run:run a device that a migration left stopped'
	)
	common=(
		'--json[print results and failures as JSON]'
		'(-v --verbose)'{-q,--quiet}'[print only errors]'
		'(-q --quiet)'{-v,--verbose}'[print each step]'
		'(-)'{-h,--help}'[print help]'
		'(-)'{-V,--version}'[print the version]'
	)
	open=(
		'--iommu[how to open the device]:how:(auto type1 iommufd)'
		'--vf-token[VF token of the physical function]:UUID: '
	)
	source=(
		'*--fill-region[fill a region of the source first]:region=file:_files'
		'--optimize[when to stop the source]:goal:(downtime total-time)'
		'--max-downtime[give up if this is exceeded]:milliseconds: '
		'--stop-copy[stop the source at once]'
		'--bandwidth[send at most this many bytes per second]:rate, such as 100M: '
	)
	keep=(
		'--hold[then keep the device open until Ctrl-C]'
		'--verify[only check whether the device accepts the state]'
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
	# A command with its own arguments follows --
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
		_arguments $common $open '(-i --input)'{-i,--input}'[snapshot to read]:file:_files' $device ;;
	check)
		_arguments $common $open $device $device ;;
	save)
		_arguments $common $open $source '(-o --output)'{-o,--output}'[snapshot to write]:file:_files' \
			'*--dump-region[then copy a region to a file]:region=file:_files' $device ;;
	load)
		_arguments $common $open $keep '(-i --input)'{-i,--input}'[snapshot to read]:file:_files' $device ;;
	send)
		_arguments $common $open $source '--to[address of the receiver]:address: ' \
			'--timeout[how long the other side may be silent]:seconds: ' \
			'--ack-timeout[how long the target may take to start]:seconds: ' \
			'*--dump-region[then copy a region to a file]:region=file:_files' $device ;;
	receive)
		_arguments $common $open $keep '--listen[address to listen on]:address: ' \
			'--timeout[how long the other side may be silent]:seconds: ' \
			'--accept-timeout[how long to wait for a source]:seconds: ' $device ;;
	move)
		_arguments $common $open $source $keep \
			'--timeout[how long the other side may be silent]:seconds: ' \
			'--ack-timeout[how long the target may take to start]:seconds: ' $device $device ;;
	run)
		_arguments $common '--reset[reset a device that cannot be run otherwise]' ':fd\:N: ' ;;
	esac
}

_vfio_migrate "$@"
