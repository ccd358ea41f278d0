# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# How Debian roots get at packages: as this host's own apt does. Source it; it
# only defines things.

# Debian mirrors in this host's apt configuration, best first. A host whose apt
# has not fetched its indexes yet is known by its release's name.
mirrors() {
	local codename
	command -v apt-get >/dev/null || return 0
	codename=$(awk -F= '$1 == "ID" { id = $2 } $1 == "VERSION_CODENAME" { c = $2 } END { if (id == "debian") print c }' /etc/os-release)
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(ORIGIN)|$(LABEL)' 'Created-By: Packages' |
		awk -F'|' -v c="${codename:-none}" '
			$3 == "Debian" && $4 == "Debian" { print 1, $1; next }
			$2 == c || $2 == "stable" || $2 == "testing" || $2 == "unstable" || $2 == "sid" { if ($3 == "") print 2, $1 }' |
		sort -s -k1,1n | awk '!seen[$2]++ { print $2 }'
}

# Proxies, credentials and time limits set for this host's apt hold here too.
apt_options() {
	command -v apt-config >/dev/null || return 0
	apt-config dump | grep -iE '^Acquire::(https?|ftp|Retries|ForceIPv[46])' | grep -v ' "";$' || true
	[ ! -d /etc/apt/auth.conf.d ] || echo 'Dir::Etc::netrcparts "/etc/apt/auth.conf.d";'
	[ ! -f /etc/apt/auth.conf ] || echo 'Dir::Etc::netrc "/etc/apt/auth.conf";'
}

# first_mirror SUITE COMMAND...: COMMAND MIRROR, until it succeeds
first_mirror() {
	local suite=$1 mirror
	shift
	for mirror in ${PRECOPY_MIRROR:-} $(mirrors); do
		echo "== trying $mirror"
		"$@" "$mirror" && return
	done
	echo "no Debian mirror of this host's apt (or in PRECOPY_MIRROR) could deliver $suite: is the network up?"
	return 1
}
