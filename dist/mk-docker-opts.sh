#!/bin/sh
# Turns flannel's subnet.env into options for the Docker daemon.
set -eu

usage() {
	cat <<EOF
Usage: $0 [-f FILE] [-d FILE] [-i] [-c] [-k KEY] [-m]

Writes options for the Docker daemon that fit this node's subnet.

  -f FILE  read flannel's subnet.env from FILE (/run/flannel/subnet.env)
  -d FILE  write the options to FILE (/run/docker_opts.env)
  -i       write one variable per option
  -c       write one variable with all options; without -i and -c, both
  -k KEY   name of the variable with all options (DOCKER_OPTS); a value that it
           has in the environment is kept in front
  -m       leave masquerading out
EOF
}

fail() {
	echo "$0: $*" >&2
	exit 1
}

# quoted prints a text so that it survives within double quotes, for systemd
# as well as for a shell.
quoted() {
	rest=$1
	while :; do
		case $rest in
		*[\"\\\$\`]*) ;;
		*) break ;;
		esac
		plain=${rest%%[\"\\\$\`]*}
		rest=${rest#"$plain"}
		printf '%s\\%.1s' "$plain" "$rest"
		rest=${rest#?}
	done
	printf '%s' "$rest"
}

subnet_file=/run/flannel/subnet.env
options_file=/run/docker_opts.env
individual=false
combined=false
key=DOCKER_OPTS
masquerading=true

while getopts f:d:ick:mh option; do
	case $option in
	f) subnet_file=$OPTARG ;;
	d) options_file=$OPTARG ;;
	i) individual=true ;;
	c) combined=true ;;
	k) key=$OPTARG ;;
	m) masquerading=false ;;
	h)
		usage
		exit 0
		;;
	*)
		usage >&2
		exit 1
		;;
	esac
done
shift $((OPTIND - 1))
if [ $# -gt 0 ]; then
	usage >&2
	exit 1
fi
if [ $individual = false ] && [ $combined = false ]; then
	individual=true combined=true
fi
case $key in
'' | [0-9]* | *[!A-Za-z0-9_]*) fail "-k $key: use a name of letters, digits and underscores" ;;
esac

[ -f "$subnet_file" ] || fail "$subnet_file does not exist: flanneld writes it once it has a subnet; look at its log"

# The file is read, not run: it is data.
subnet='' mtu='' flannel_masq=none
while IFS='=' read -r name value || [ -n "$name" ]; do
	case $name in
	FLANNEL_SUBNET) subnet=$value ;;
	FLANNEL_MTU) mtu=$value ;;
	FLANNEL_IPMASQ) flannel_masq=$value ;;
	esac
done <"$subnet_file"

[ -n "$subnet" ] || fail "$subnet_file has no FLANNEL_SUBNET: restart flanneld to have it written again"
case $subnet in
*[!0-9./]*) fail "$subnet_file: FLANNEL_SUBNET=$subnet is not an IPv4 subnet" ;;
esac
case $mtu in
*[!0-9]*) fail "$subnet_file: FLANNEL_MTU=$mtu is not a number" ;;
esac
docker_masq=''
case $flannel_masq in
none) ;;
true) docker_masq=false ;;
false) docker_masq=true ;;
*) fail "$subnet_file: FLANNEL_IPMASQ=$flannel_masq is not allowed: use true or false" ;;
esac
[ $masquerading = true ] || docker_masq=''

all=''
# add NAME OPTION: one option, for both forms.
add() {
	if [ $individual = true ]; then
		echo "DOCKER_OPT_$1=\"$2\""
	fi
	all="$all $2"
}

options() {
	add BIP "--bip=$subnet"
	if [ -n "$docker_masq" ]; then
		add IPMASQ "--ip-masq=$docker_masq"
	fi
	if [ -n "$mtu" ]; then
		add MTU "--mtu=$mtu"
	fi
	if [ $combined = true ]; then
		kept=$(printenv "$key") || kept=''
		printf '%s="%s%s"\n' "$key" "$(quoted "$kept")" "$all"
	fi
}

# A link or a device such as /dev/stdout is written through.
if [ -h "$options_file" ] || { [ -e "$options_file" ] && [ ! -f "$options_file" ]; }; then
	options >"$options_file"
	exit 0
fi

# A reader sees all of the file or none of it.
temporary=$options_file.$$
trap 'rm -f "$temporary"' EXIT
trap 'exit 1' HUP INT TERM
options >"$temporary"
mv -f "$temporary" "$options_file"
