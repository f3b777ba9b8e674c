#!/bin/sh
# A device in POSIX sh: keeps itself up to date from a Precast server or mirror that it need not trust.
#
#   precast-device.sh URL SELECTION ROOT.pem DIR [COMMAND [ARGUMENT...]]
#
#   URL        where packages come from, such as https://packages.example.com
#   SELECTION  what the device is: 'cpuArch=armv8&attrGamer=prod'. Without a slot=NUMBER in it, one from 0 to 9999 is
#              drawn, once, and remembered: it decides when the device gets a release that is being rolled out
#   ROOT.pem   the public root key that the device is made with
#   DIR        a folder of its own; it remembers there what it has seen
#   COMMAND    takes a new set of files into use: it is run with the set's folder as last argument
#
# PRECAST_NO_SLOT=1 in the environment: the device sends no slot, and gets a release when its rollout has ended.
# PRECAST_HELD: the SHA-256 digests of the files that the device was made with. They tell which floors it has passed,
# until it has installed something else.
#
# Exit status: 0 everything is up to date, 3 the server sent what is not to be believed (stderr says what),
# 1 anything else. After 1 and 3 the device has what it had before; COMMAND was not run, or it failed.
#
# Needs curl, tar, openssl 3, sha256sum, awk, sed; dash and busybox ash will do. docs/trust.md tells what is
# checked, and what the client in Go does beyond that.
set -eu
LC_ALL=C
export LC_ALL
umask 077

say() { printf '%s\n' "precast-device: $*" >&2; }
fail() { say "$*"; exit 1; }
refuse() { # CHECK WORDS...
	check=$1
	shift
	say "refused ($check): $*"
	exit 3
}

[ $# -ge 4 ] || fail "usage: precast-device.sh URL SELECTION ROOT.pem DIR [COMMAND...]"
url=${1%/} wanted=$2 root=$3 dir=$4
shift 4

# Limits, as in the client in Go. sh counts to 2^63 at least: 15 digits are safe.
max_statement=262144 max_keyring=65536 max_jump=1048576 max_first=1099511627776 max_versions=${PRECAST_MAX_VERSIONS:-256}
min_rate=${PRECAST_MIN_RATE:-512} rate_window=${PRECAST_RATE_WINDOW:-30}
now=${PRECAST_NOW:-$(date -u +%Y%m%d%H%M%S)} # 14 digits

mkdir -p "$dir/files"
tmp=$dir/tmp.$$
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$tmp"

digits() { tr -dc 0-9; }
digest() { sha256sum <"$1" | cut -d ' ' -f 1; }
size() { wc -c <"$1" | tr -d ' '; }
# Keyrings and statements are ASCII, without control characters: all programs here read them alike.
is_text() { [ "$(tr -d '\n -~' <"$1" | wc -c | tr -d ' ')" = 0 ]; }
is_number() { case $1 in '' | *[!0-9]* | ????????????????*) return 1 ;; esac }
# The value of the only line "NAME value" of a file.
field() { sed -n "s/^$1 //p" "$2"; }

# canonical QUERY: as edge.Selection.String. What is escaped must be canonical already.
canonical() {
	case $1 in *%* | *+*) printf '%s\n' "$1"; return ;; esac
	printf '%s\n' "$1" | tr '&A-Z' '\na-z' | grep '[^=]=.' | sort -s -t = -k 1,1 |
		awk -F = '!seen[$1]++ && $0 != "os=prod" && $1 != "payloadtype" && $1 != "attr" && $1 != "slot" { printf "%s%s", sep, $0; sep = "&" }'
}

# fetch FILE LIMIT PATH [CURL OPTIONS]: an answer of at most LIMIT bytes; sets code to its status. ulimit counts blocks
# of 512 bytes: a server that does not say how much it sends is stopped by it.
fetch() {
	file=$1 limit=$2 path=$3
	shift 3
	status=0
	code=$(ulimit -f $((limit / 512 + 2)) && curl -sS --max-redirs 5 --connect-timeout 60 --speed-limit "$min_rate" \
		--speed-time "$rate_window" --max-filesize "$limit" -o "$file" -w '%{http_code}' "$@" "$url$path" 2>"$tmp/curl") || status=$?
	if [ -f "$file" ] && [ "$(size "$file")" -gt "$limit" ] || [ "$status" = 63 ]; then
		rm -f "$file"
		refuse "too long" "$path is longer than $limit bytes"
	fi
	case $status in
	0) ;;
	28) refuse "too slow" "$path comes at less than $min_rate bytes a second" ;;
	*) return "$status" ;;
	esac
}

# get FILE LIMIT PATH [CURL OPTIONS]: an answer that must be there.
get() {
	rm -f "$1"
	fetch "$@" || fail "get $3: $(cat "$tmp/curl")"
	[ "$code" = 200 ] || fail "get $3: the server answered $code"
	[ -f "$1" ] || : >"$1"
}

# verified TEXT SIGNATURE KEY: whether the key, a SubjectPublicKeyInfo in base64, has signed the file TEXT.
verified() {
	printf 'precast signature 1 %s\n' "$(digest "$1")" >"$tmp/message"
	printf '%s' "$2" | openssl base64 -d -A >"$tmp/signature" 2>/dev/null || return 1
	printf -- '-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n' "$3" >"$tmp/key.pem"
	openssl pkeyutl -verify -pubin -inkey "$tmp/key.pem" -rawin -in "$tmp/message" -sigfile "$tmp/signature" >/dev/null 2>&1
}

# signed_by KEYRING ROOTS: whether one of the root keys in the file ROOTS has signed KEYRING.
signed_by() {
	grep -v '^signature ' "$1" >"$tmp/text" || return 1
	sed -n 's/^root //p' "$2" >"$tmp/roots"
	while read -r id key; do
		for value in $(sed -n "s/^signature $id //p" "$1"); do
			verified "$tmp/text" "$value" "$key" && return 0
		done
	done <"$tmp/roots"
	return 1
}

# trusted KEYRING ROOTS: signed by one of ROOTS and by one of its own.
trusted() { signed_by "$1" "$2" && signed_by "$1" "$1"; }

# get_keyring FILE PATH: a keyring, of which only the form is checked; sets version.
get_keyring() {
	get "$1" "$max_keyring" "$2"
	[ "$(sed -n 1p "$1")" = "precast keyring 1" ] && is_text "$1" || refuse "malformed" "$2 is not a keyring"
	! grep '^signature ' "$1" | grep -Eqv '^signature [0-9a-f]{64} [A-Za-z0-9+/]{85}[AQgw]==$' ||
		refuse "malformed" "$2 has a signature that cannot be one"
	version=$(field version "$1")
	is_number "$version" || refuse "malformed" "$2 has no version"
}

# unsigned KEYRING: all of it that is signed. Anybody can add signatures, so that two keyrings are the same if
# the rest is, and none is remembered with them.
unsigned() { grep -v '^signature ' "$1"; }

# remember KEYRING: once it is on the disk: a power cut must not leave an empty file under the name.
remember() {
	unsigned "$1" >"$tmp/remembered"
	cmp -s "$tmp/remembered" "$dir/keyring" && return
	sync
	mv "$tmp/remembered" "$dir/keyring"
}

history_of() { printf '/keyring.d/%020d' "$1"; }

# --- keyring: from what is known to the newest
printf 'root %s %s\n' "$(sed '/^-/d' "$root" | tr -d '\n' | openssl base64 -d -A | sha256sum | cut -d ' ' -f 1)" \
	"$(sed '/^-/d' "$root" | tr -d '\n')" >"$tmp/pinned"
get_keyring "$tmp/newest" /keyring
newest=$version
if [ -s "$dir/keyring" ]; then
	known=$(field version "$dir/keyring")
	[ "$newest" -ge "$known" ] || refuse "old keyring" "keyring has version $newest, after version $known"
	last=$newest
	[ $((newest - known)) -le "$max_versions" ] || last=$((known + max_versions))
	if [ "$newest" -eq "$known" ]; then
		unsigned "$tmp/newest" | cmp -s - "$dir/keyring" || refuse "untrusted keyring" "there are two keyrings of version $known"
	fi
	cp "$dir/keyring" "$tmp/known"
	while [ "$known" -lt "$last" ]; do
		known=$((known + 1))
		if [ "$known" -lt "$newest" ]; then
			get_keyring "$tmp/next" "$(history_of $known)"
		else
			cp "$tmp/newest" "$tmp/next"
		fi
		[ "$(field version "$tmp/next")" = "$known" ] && trusted "$tmp/next" "$tmp/known" ||
			refuse "untrusted keyring" "version $known is not signed by a root key that is trusted"
		mv "$tmp/next" "$tmp/known"
	done
	remember "$tmp/known"
	[ "$known" -eq "$newest" ] || fail "keyring is at version $known of $newest: the next run resumes from there"
else
	# Back to a keyring that the root key of this device has signed.
	cp "$tmp/newest" "$tmp/after"
	steps=0
	until trusted "$tmp/after" "$tmp/pinned"; do
		version=$(field version "$tmp/after")
		steps=$((steps + 1))
		[ "$version" -gt 1 ] && [ "$steps" -le "$max_versions" ] || refuse "untrusted keyring" "it is not signed by a root key that is trusted"
		before=$((version - 1))
		get_keyring "$tmp/before" "$(history_of $before)"
		[ "$version" = "$before" ] && trusted "$tmp/after" "$tmp/before" ||
			refuse "untrusted keyring" "version $((before + 1)) is not signed by a root key of version $before"
		mv "$tmp/before" "$tmp/after"
	done
	remember "$tmp/newest"
fi
# --- what the device is
slot=$(printf '%s\n' "$wanted" | tr '&A-Z' '\na-z' | sed -n 's/^slot=//p' | sed -n 1p)
wanted=$(printf '%s\n' "$wanted" | tr '&' '\n' | grep -v '^[Ss][Ll][Oo][Tt]=' | tr '\n' '&')
selection=$(canonical "${wanted%&}")
if [ -z "$slot" ] && [ -z "${PRECAST_NO_SLOT:-}" ]; then
	# Another slot could be on the other side of a rollout.
	if [ ! -s "$dir/slot" ]; then
		printf '%s\n' $((0x$(openssl rand -hex 4) % 10000)) >"$tmp/slot"
		sync
		mv "$tmp/slot" "$dir/slot"
	fi
	slot=$(cat "$dir/slot")
fi
case $slot in *[!0-9]*) fail "slot $slot is not a number from 0 to 9999" ;; esac
query=$selection${slot:+"&slot=$slot"}
slot=$(printf '%s' "$slot" | sed 's/^0*\(.\)/\1/') # 010 would be 8 to a shell

generation=0 signer='' current=''
for sum in ${PRECAST_HELD:-}; do printf '%s\n' "$sum"; done >"$tmp/held"
if [ -s "$dir/state" ]; then
	generation=$(field generation "$dir/state") signer=$(field signed-by "$dir/state") current=$(field set "$dir/state")
	# A device that has become another one starts anew; generations are of the whole catalog, and keep counting.
	[ "$(field selection "$dir/state")" = "$selection" ] || current=''
	field has "$dir/state" >"$tmp/held"
fi
# What a revoked key has signed says nothing about generations: a thief may have counted far ahead.
if [ -n "$signer" ] && grep -qx "revoked $signer" "$dir/keyring"; then
	generation=0 current=''
fi
expires=$(field expires "$dir/keyring" | digits)
[ "$expires" -gt "$now" ] || refuse "expired keyring" "it has expired at $(field expires "$dir/keyring")"

# --- statement
# place SALT: of the device's slot, as edge.Place.
place() {
	sum=$(printf 'precast rollout 1 %s' "$1" | sha256sum)
	factor=$((0x$(printf '%s' "$sum" | cut -c 1-8) % 1000 * 10))
	case $((0x$(printf '%s' "$sum" | cut -c 9-10) % 4)) in
	0) factor=$((factor + 1)) ;;
	1) factor=$((factor + 3)) ;;
	2) factor=$((factor + 7)) ;;
	3) factor=$((factor + 9)) ;;
	esac
	printf '%s\n' $(((factor * slot + 0x$(printf '%s' "$sum" | cut -c 11-18) % 10000) % 10000))
}

# ask_statement HELD: sets step to what is wrong with it, if it is for devices before or after another floor.
ask_statement() {
	get "$tmp/statement" "$max_statement" "/package?$query&payloadType=statement" ${1:+-H} ${1:+"If-None-Match: $1"}
	[ "$(sed -n 1p "$tmp/statement")" = "precast statement 1" ] && is_text "$tmp/statement" || refuse "malformed" "the answer is not a statement"
	value=$(sed -n '$s/^signature //p' "$tmp/statement")
	sed '$d' "$tmp/statement" >"$tmp/said"
	key=$(field key "$tmp/said")
	case $key in '' | *[!0-9a-f]*) refuse "malformed" "statement names no key" ;; esac
	! grep -qx "revoked $key" "$dir/keyring" || refuse "revoked key" "statement is signed by $key, which has been revoked"
	public=$(sed -n "s/^signing $key //p" "$dir/keyring")
	[ -n "$public" ] || refuse "unknown key" "statement is signed by $key, which is not in the keyring"
	verified "$tmp/said" "$value" "$public" || refuse "wrong signature" "statement is not what $key has signed"
	[ "$(field selection "$tmp/said")" = "$selection" ] ||
		refuse "other selection" "statement is for $(field selection "$tmp/said"), not for $selection"
	[ "$(field expires "$tmp/said" | digits)" -gt "$now" ] || refuse "expired statement" "it has expired at $(field expires "$tmp/said")"
	! grep -E '^(rollout|unless|after) ' "$tmp/said" |
		grep -Eqv '^(rollout [a-z0-9_-]{1,32} (0|[1-9][0-9]{0,3}) (in|out)|unless [0-9a-f]{64}|after [0-9a-f]{64}( [0-9a-f]{64})*)$' ||
		refuse "malformed" "statement does not say clearly which devices it is for"
	field rollout "$tmp/said" >"$tmp/rollouts"
	while read -r salt places verdict; do
		side=out
		[ -z "$slot" ] || [ "$(place "$salt")" -ge "$places" ] || side=in
		[ "$verdict" = $side ] || refuse "other rollout" "statement is for devices on the other side of the rollout $salt to $places of 10000"
	done <"$tmp/rollouts"
	step=''
	field unless "$tmp/said" >"$tmp/unless"
	while read -r sum; do
		! grep -qx "$sum" "$tmp/held" || step="devices without $sum"
	done <"$tmp/unless"
	field after "$tmp/said" >"$tmp/after_any"
	while read -r sums; do
		passed=''
		for sum in $sums; do
			! grep -qx "$sum" "$tmp/held" || passed=1
		done
		[ -n "$passed" ] || step="devices that have passed a floor, such as ${sums%% *}"
	done <"$tmp/after_any"
}
# What the device holds matters only where there are floors: without it, all devices ask for one statement.
held=$(sed -n '1,64p' "$tmp/held" | tr '\n' ',')
if [ -s "$dir/state" ] && grep -qx 'floors yes' "$dir/state"; then
	ask_statement "${held%,}"
else
	ask_statement ''
	[ -z "$step" ] || [ -z "$held" ] || ask_statement "${held%,}"
fi
[ -z "$step" ] || refuse "other step" "statement is for $step"
said=$(field generation "$tmp/said")
is_number "$said" || refuse "far generation" "statement is of generation $said"
[ "$said" -ge "$generation" ] || refuse "old generation" "statement is of generation $said, after $generation"
most=$((generation + max_jump))
[ "$generation" -gt 0 ] || most=$max_first
[ "$said" -le "$most" ] ||
	refuse "far generation" "statement is of generation $said, too far from $generation"
sed -n 's/^item //p' "$tmp/said" >"$tmp/items"
# An item becomes a file: the signer must not choose where. Its digest, its size without leading zeros, and two
# names, percent-encoded only where they must be, not empty, without '.' or '-' at the beginning, and without '/',
# '\' or a control character. Then two files of one name have one spelling.
plain='[A-Za-z0-9_~]|%[0-9A-F]{2}'
! grep -Eqv "^[0-9a-f]{64} (0|[1-9][0-9]{0,14}) ($plain)($plain|[.-])* ($plain)($plain|[.-])*\$" "$tmp/items" &&
	! grep -Eq '%([01].|7F|2F|5C|2[DE]|3[0-9]|[46][1-9A-F]|5[0-9AF]|7[0-9AE])' "$tmp/items" && [ -s "$tmp/items" ] ||
	refuse "malformed" "an item cannot be a file"
files=$(cut -d ' ' -f 3,4 "$tmp/items" | tr ' ' _ | sort)
[ "$(printf '%s\n' "$files" | uniq -d)" = '' ] && ! printf '%s\n' "$files" | grep -qx 'package_details\.json' ||
	refuse "malformed" "an item is there twice, or has the name of package_details.json"
contents=$(digest "$tmp/items")
set=$dir/set-$contents
# follows: whether this is what comes after the floors in use.
follows() {
	grep -q '^unless ' "$dir/state" || return 1
	while read -r sum rest; do
		grep -qxE "(has|unless) $sum" "$dir/state" || return 1
	done <"$tmp/items"
}
[ "$said" -ne "$generation" ] || [ -z "$current" ] || [ "$current" = "set-$contents" ] || follows ||
	refuse "other content" "statement is of generation $said, of which another one said another thing"

# --- what is lacking
held='' held_count=0 lacking=0 count=0 largest=65536
limit=65536
# Which floors the device has passed, the server has to be told again, if it matters.
if [ -s "$tmp/after_any" ]; then
	while read -r sum; do
		if ! grep -q "^$sum " "$tmp/items" && [ $held_count -lt 64 ]; then
			held_count=$((held_count + 1))
			held=$held${held:+, }$sum
		fi
	done <"$tmp/held"
fi
while read -r sum bytes app release; do
	count=$((count + 1))
	[ "$bytes" -le "$largest" ] || largest=$bytes
	if [ -f "$dir/files/$sum" ] && [ "$(size "$dir/files/$sum")" = "$bytes" ]; then
		held_count=$((held_count + 1))
		[ $held_count -gt 64 ] || held=$held${held:+, }$sum
		[ $held_count -le 64 ] || limit=$((limit + bytes + bytes / 1024 + 4096))
	else
		lacking=$((lacking + 1))
		limit=$((limit + bytes + bytes / 1024 + 4096))
	fi
done <"$tmp/items"
limit=$((limit + 4096 + 4096 * count))

# name ESCAPED: undoes percent-encoding. (printf %b knows octal numbers everywhere.)
name() {
	printf '%b' "$(printf '%s\n' "$1" | awk '{
		digits = "0123456789ABCDEF"
		while (i = index($0, "%")) {
			value = 16 * (index(digits, substr($0, i + 1, 1)) - 1) + index(digits, substr($0, i + 2, 1)) - 1
			printf "%s\\0%03o", substr($0, 1, i - 1), value
			$0 = substr($0, i + 3)
		}
		print
	}')"
}

# download: the bundle of what is lacking, from where it broke off.
download() {
	part=$dir/download-$(printf '%s' "$contents $held" | sha256sum | cut -c 1-16)
	for old in "$dir"/download-*; do
		[ "$old" = "$part" ] || rm -f "$old"
	done
	resumed=''
	[ ! -s "$part" ] || resumed=1
	set -- ${held:+-H} ${held:+"If-None-Match: $held"}
	fetch "$part" "$limit" "/package?$query" ${resumed:+-C -} "$@" || {
		# 33, or an answer that is no range: the server cannot resume.
		[ "$status" != 33 ] || rm -f "$part"
		fail "get bundle: $(cat "$tmp/curl")"
	}
	case $code in
	200 | 206) ;;
	416) ;; # nothing is left, or what is there is wrong: the digests tell
	304) refuse "missing file" "the server says that nothing is lacking" ;;
	*) rm -f "$part"; fail "get bundle: the server answered $code" ;;
	esac
}

# unpack: every file of the bundle that the statement lists goes to files/, under its digest.
unpack() {
	gzip -t <"$part" 2>"$tmp/gzip" || {
		! grep -q 'unexpected end\|short read\|EOF' "$tmp/gzip" || refuse "missing file" "bundle has been cut off"
		refuse "wrong file" "bundle is damaged"
	}
	mkdir "$tmp/unpacked"
	tar -tzf "$part" >"$tmp/names" 2>/dev/null || refuse "wrong file" "bundle is damaged"
	! grep -q / "$tmp/names" || refuse "extra file" "bundle has a file in a folder"
	! tar -tvzf "$part" 2>/dev/null | grep -qv '^-' || refuse "extra file" "bundle has something that is no regular file"
	[ "$(wc -l <"$tmp/names")" -le $((count + 1)) ] || refuse "extra file" "bundle has more files than the statement"
	(ulimit -f $((largest / 512 + 2)) && tar -xzf "$part" -C "$tmp/unpacked") 2>/dev/null || refuse "wrong file" "bundle cannot be unpacked, or has a file that is too long"
	[ -f "$tmp/unpacked/package_details.json" ] || refuse "wrong details" "bundle has no package_details.json"
	sed -n 's/^ *"sha256": "\([0-9a-f]*\)".*/\1/p' "$tmp/unpacked/package_details.json" | sort >"$tmp/details"
	details=right
	cut -d ' ' -f 1 "$tmp/items" | sort | cmp -s - "$tmp/details" || details=wrong
	rm "$tmp/unpacked/package_details.json"
	mkdir "$tmp/good"
	while read -r sum bytes app release; do
		file=$tmp/unpacked/$(name "${app}_$release")
		[ -f "$file" ] || continue
		[ "$(size "$file")" = "$bytes" ] || refuse "wrong file" "${app}_$release has $(size "$file") bytes, the statement says $bytes"
		[ "$(digest "$file")" = "$sum" ] || refuse "wrong file" "${app}_$release has another digest than the statement says"
		mv "$file" "$tmp/good/$sum"
	done <"$tmp/items"
	rest=$(ls -A "$tmp/unpacked")
	[ -z "$rest" ] || refuse "extra file" "$rest is not in the statement"
	while read -r sum bytes app release; do
		[ -f "$dir/files/$sum" ] && [ "$(size "$dir/files/$sum")" = "$bytes" ] || [ -f "$tmp/good/$sum" ] || refuse "missing file" "bundle lacks ${app}_$release"
	done <"$tmp/items"
	[ $details = right ] || refuse "wrong details" "package_details.json does not say what the statement does"
	mv "$tmp/good"/* "$dir/files/"
}

while [ "$lacking" -gt 0 ]; do
	download
	set +e
	(set -e && unpack)
	status=$?
	set -e
	rm -f "$part"
	[ "$status" != 0 ] || break
	# What was begun may have been spoilt by somebody who has gone since: then once more, from the beginning.
	[ "$status" = 3 ] && [ -n "$resumed" ] || exit "$status"
	rm -rf "$tmp/unpacked" "$tmp/good"
done

# --- into use: a folder of the set, verified once more, then the state in one step
if [ "$current" != "set-$contents" ]; then
	rm -rf "$set.new"
	mkdir "$set.new"
	while read -r sum bytes app release; do
		[ "$(digest "$dir/files/$sum")" = "$sum" ] || {
			rm -f "$dir/files/$sum"
			refuse "wrong file" "${app}_$release has changed on this device"
		}
		ln "$dir/files/$sum" "$set.new/$(name "${app}_$release")" 2>/dev/null || cp "$dir/files/$sum" "$set.new/$(name "${app}_$release")"
		chmod 755 "$set.new/$(name "${app}_$release")"
	done <"$tmp/items"
	rm -rf "$set"
	mv "$set.new" "$set"
	[ $# -eq 0 ] || "$@" "$set" || fail "install generation $said: the command failed"
fi
{
	printf 'selection %s\ngeneration %s\nsigned-by %s\nset set-%s\n' "$selection" "$said" "$key" "$contents"
	sed 's/^\([^ ]*\) .*/has \1/' "$tmp/items"
	sed 's/^/unless /' "$tmp/unless"
	[ ! -s "$tmp/unless" ] && [ ! -s "$tmp/after_any" ] || printf 'floors yes\n'
} >"$tmp/state"
sync
mv "$tmp/state" "$dir/state"
if [ "$current" != "set-$contents" ]; then
	for old in "$dir"/set-*; do
		[ "$old" = "$set" ] || rm -rf "$old"
	done
	for old in "$dir"/files/*; do
		grep -q "^${old##*/} " "$tmp/items" || rm -f "$old"
	done
	more=''
	[ ! -s "$tmp/unless" ] || more=', a floor: run it, and then this again'
	printf 'installed generation %s: %s%s\n' "$said" "$set" "$more"
else
	printf 'generation %s is installed\n' "$said"
fi
