#!/bin/sh
# Send what lies in outbox/, fetch what has arrived into inbox/; with sh and OpenSSH's sftp alone.
#
#   sh sync-openssh.sh [-F CONFIG] [-H HOST] FOLDER
#
#   CONFIG  the configuration that `enroll` has written (~/careplan-relay/config unless told otherwise)
#   HOST    the name in it (careplan-relay unless told otherwise)
#
# In FOLDER:
#   outbox/     put files here, whole: write them elsewhere or under a name with a dot in front, and move them in.
#               outbox/OFFICE/ is for a file whose own name does not say a recipient.
#   sent/       what the relay holds: its status file shows name and SHA-256 of just these bytes
#   refused/    what the relay refused, and beside each file why, and what to do
#   inbox/      what was sent to you. A file is here whole or not at all, and comes once: you may take it away at once
#   .careplan-relay/   the script's own
#
# It may be interrupted or killed at any moment and run again: nothing is lost, and nothing comes or goes twice. Nothing
# that exists is overwritten. What could not be sent stays in outbox/ for the next run. From cron:
#
#   */10 * * * *  sh /usr/local/bin/sync-openssh.sh /srv/careplan
#
# Exit codes: 0 all is done; 1 something was refused; 2 wrong command; 3 something is left for the next run: no connection,
# or another run is at work.
set -u
umask 077

# Files in one session: after each session what it did is settled.
MOST=500
# A whole file can look as if it were cut off; the relay takes it the second time.
TRIES=2
NEWLINE='
'
TAB=$(printf '\t')
RETURN=$(printf '\r')

sent=0 refused=0 fetched=0 left=0

main() {
    config=${HOME:-}/careplan-relay/config host=careplan-relay
    while getopts F:H: option; do
        case $option in
        F) config=$OPTARG ;;
        H) host=$OPTARG ;;
        *) usage ;;
        esac
    done
    shift $((OPTIND - 1))
    [ $# = 1 ] || usage
    case $config in /*) ;; *) config=$PWD/$config ;; esac
    [ -r "$config" ] || fail 2 "設定ファイルがありません / there is no configuration: $config"
    mkdir -p "$1" && folder=$(CDPATH='' cd -- "$1" && pwd -P) || exit 2
    state=$folder/.careplan-relay run=$state/run.$$
    mkdir -p "$folder/outbox" "$folder/sent" "$folder/refused" "$folder/inbox" "$state/whole" || exit 2
    choose_digest
    take_turn
    trap leave EXIT
    trap 'exit 130' INT
    trap 'exit 143' HUP TERM
    mkdir -p "$run/part" && cd "$run" || exit 2
    adopt_parts
    deliver
    { send_all && fetch_all; } || left=1
    report
}

usage() {
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

fail() {
    printf '%s\n' "$2" >&2
    exit "$1"
}

# What was fetched in part stays for the next run.
leave() {
    rm -f "$run"/* 2>/dev/null
    rmdir "$run/part" "$run" 2>/dev/null
    rm -f "$state/lock"
}

report() {
    left=$((left + $(list_outbox aloud | wc -l)))
    printf 'sent %d, refused %d, fetched %d, left %d\n' "$sent" "$refused" "$fetched" "$left"
    printf '送信 %d 件、受付拒否 %d 件、受信 %d 件、残り %d 件\n' "$sent" "$refused" "$fetched" "$left"
    [ "$left" = 0 ] || exit 3
    [ "$refused" = 0 ] || exit 1
    exit 0
}

# --- one at a time -------------------------------------------------------------------------------------------------

take_turn() {
    # A symbolic link comes into being with what it says, in one step.
    ln -s $$ "$state/lock" 2>/dev/null && return
    other=$(readlink "$state/lock")
    if kill -0 "$other" 2>/dev/null; then
        # The number may long belong to another program; where ps does not know -p, it is taken for ours.
        words=$(ps -o args= -p "$other" 2>/dev/null) || words=sync-openssh
        case $words in *sync-openssh*) fail 3 "ほかの同期が動いています / another run is at work: $other" ;; esac
    fi
    rm -f "$state/lock"
    ln -s $$ "$state/lock" || exit 3
}

# A killed run may have left an sftp that still works. It loses its folder, and ends; what it has fetched is copied,
# because it may still write to its own.
adopt_parts() {
    for old in "$state"/run.*; do
        [ "$old" = "$run" ] && continue
        for file in "$old"/part/*; do
            [ -s "$file" ] && cp "$file" part/
        done
        rm -rf "$old"
    done
}

# --- talking to the relay --------------------------------------------------------------------------------------------

# One session that does what stands in `todo`; what it prints is in `said`. A line that begins with - may fail.
talk() {
    sftp -q -F "$config" -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4 \
        -b todo "$host" </dev/null >said 2>complaints
}

# Fetch status/$1.json, whole.
read_status() {
    rm -f "$1.json"
    printf 'get status/%s.json %s.json\n' "$1" "$1" >todo
    talk && [ "$(tail -n 1 "$1.json")" = ']}' ] && return
    complain
}

complain() {
    cat complaints >&2
    printf 'サーバーと通信できません。続きは次回に行います。 / The relay cannot be reached; the next run goes on.\n' >&2
    return 1
}

# Print the rows of a status file, a line each: the values of the keys in $2, parted by slashes, which no name holds.
# Of the two forms JSON is the exact one, a row a line; a quotation mark within a value has a backslash before it.
rows() {
    LC_ALL=C awk -v keys="$2" '
    function value(row, key,    at, rest, found) {
        at = index(row, "\"" key "\": ")
        rest = substr(row, at + length(key) + 4)
        if (substr(rest, 1, 1) != "\"") { sub(/[,}].*/, "", rest); return rest }
        rest = substr(rest, 2)
        while (match(rest, /["\\]/)) {
            found = found substr(rest, 1, RSTART - 1)
            if (substr(rest, RSTART, 1) == "\"") return found
            found = found substr(rest, RSTART + 1, 1)
            rest = substr(rest, RSTART + 2)
        }
        return found
    }
    index($0, "\"name\": ") {
        count = split(keys, wanted, " ")
        for (i = 1; i <= count; i++) printf "%s%s", value($0, wanted[i]), (i < count ? "/" : "\n")
    }' "$1"
}

# Print a path as sftp reads it: between quotation marks it takes no character for a pattern.
quoted() {
    case $1 in
    *[\"\\]*) ;;
    *)
        printf '"%s"' "$1"
        return
        ;;
    esac
    printf '"%s"' "$1" | LC_ALL=C sed 's/\\/\\\\/g; s/"/\\"/g; s/^\\"/"/; s/\\"$/"/'
}

choose_digest() {
    for tool in sha256sum shasum openssl; do
        command -v "$tool" >/dev/null && return
    done
    fail 2 "sha256sum, shasum, openssl: どれもありません / none of them is installed"
}

digest() {
    case $tool in
    sha256sum) sha256sum ;;
    shasum) shasum -a 256 ;;
    openssl) openssl dgst -sha256 -r ;;
    esac <"$1" | cut -c 1-64
}

# Move the file $1 to $2/$3, or to $2/$4_$3 where something else has that name already.
place() {
    [ -d "$2" ] || mkdir -p "$2" || return
    target=$2/$3
    if [ -e "$target" ] && ! cmp -s "$1" "$target"; then target=$2/$4_$3; fi
    mv -f "$1" "$target"
}

# --- sending -----------------------------------------------------------------------------------------------------------

# Print what is to be sent, a line each: office/name, with no office before the names in outbox/ itself.
# With $1, at the end, also what cannot be sent.
list_outbox() {
    for file in "$folder"/outbox/* "$folder"/outbox/*/*; do
        [ -f "$file" ] || continue
        name=${file##*/} office=${file%/*}
        [ "$office" = "$folder/outbox" ] && office=/
        case $name in
        *"$NEWLINE"* | *"$TAB"* | *"$RETURN"*)
            [ $# = 0 ] && continue
            printf 'ファイル名を直してください / this name cannot be sent: %s\n' "$file" >&2
            echo
            ;;
        # Another program still writes these.
        *.tmp | *.part | *.partial | *.filepart | '~$'*) ;;
        *) printf '%s/%s\n' "${office##*/}" "$name" ;;
        esac
    done
}

send_all() {
    : >tried
    list_outbox >outbox
    [ -s outbox ] || return 0
    read_status sent && read_status refused || return 1
    # What an earlier run has sent and could not settle is not sent again.
    settle_sent outbox
    while choose_batch; do
        mv refused.json refused-before.json
        send_batch
        read_status sent && read_status refused || return 1
        settle_sent chosen
        settle_refused
    done
}

# Choose what is sent next. One name once a session: a refusal is told by its name alone.
choose_batch() {
    list_outbox >outbox
    LC_ALL=C awk -F / -v most=$MOST -v tries=$TRIES '
    FILENAME == "tried" { count[$0]++; next }
    count[$0] < tries && !seen[$2]++ && chosen++ < most' tried outbox >chosen
    cat chosen >>tried
    [ -s chosen ]
}

send_batch() {
    number=0
    # The local side by number, so that a long path of this folder is not too long for a line of sftp's.
    while IFS=/ read -r office name; do
        number=$((number + 1))
        ln -sf "$folder/outbox/${office:+$office/}$name" "$number"
        printf -- '-put %d ' "$number"
        quoted "send/${office:+$office/}$name"
        echo
    done <chosen >todo
    # A lost connection shows in what the status then says.
    talk
}

# Print the lines of a list, and behind each the name as the relay knows it: a Mac has its own way to write a ガ.
with_known_names() {
    if [ "$(uname)" = Darwin ]; then iconv -f UTF-8-MAC -t UTF-8; else cat; fi <"$1" | paste -d / "$1" -
}

# Move to sent/ what the relay holds with just these bytes. What was taken back, or ran out, does not count.
settle_sent() {
    rows sent.json "name recipient number state sha256" >held
    with_known_names "$1" | LC_ALL=C awk -F / '
    FILENAME == "held" {
        if ($4 ~ /^(accepted|collected|destroyed)$/) holds[$1] = holds[$1] " " $2 "/" $3 "/" $5
        next
    }
    {
        count = split(holds[$4], one, " ")
        for (i = 1; i <= count; i++) {
            split(one[i], fact, "/")
            if ($1 == "" || $1 == fact[1]) print $1 "/" fact[2] "/" fact[3] "/" $2
        }
    }' held - >pairs
    while IFS=/ read -r office number sha256 name; do
        file=$folder/outbox/${office:+$office/}$name
        if [ -f "$file" ] && [ "$(digest "$file")" = "$sha256" ]; then
            place "$file" "$folder/sent${office:+/$office}" "$name" "$number" && sent=$((sent + 1))
        fi
    done <pairs
}

# Move to refused/ what was refused just now for good, with the reason. A row that counts on or is new was not there
# before the session; what may be taken later stays in outbox/.
settle_refused() {
    sed 's/,$//' refused-before.json >before
    sed 's/,$//' refused.json | LC_ALL=C awk 'FILENAME == "before" { known[$0]; next } !($0 in known)' before - >news
    rows news "name code" >reasons
    with_known_names chosen | LC_ALL=C awk -F / '
    FILENAME == "reasons" {
        if ($2 !~ /^(server|office|upload)[.]|^limit[.](quota|partials|rate|handles)$/) code[$1] = $2
        next
    }
    $4 in code { print $1 "/" code[$4] "/" $2 }' reasons - >pairs
    while IFS=/ read -r office code name; do
        file=$folder/outbox/${office:+$office/}$name
        [ -f "$file" ] || continue
        explain "$code" "$name" >reason
        mark=$(date +%Y%m%d%H%M%S)
        # The reason first: after a kill in between, the file is refused again and finds its reason there.
        place reason "$folder/refused${office:+/$office}" "$name.reason.txt" "$mark"
        place "$file" "$folder/refused${office:+/$office}" "$name" "$mark" && refused=$((refused + 1))
    done <pairs
}

explain() {
    for key in message_ja remedy_ja message_en remedy_en; do
        rows news "name code $key" | while IFS=/ read -r of why sentence; do
            [ "$of/$why" = "$2/$1" ] && printf '%s\n' "$sentence"
        done
    done
    printf '%s\n' "$1"
}

# --- fetching ----------------------------------------------------------------------------------------------------------

# The relay says what is there and with which SHA-256. `fetching` names what was begun: a file leaves new/ as soon as
# it was read, which may be a moment before this computer has it. `delivered` names what inbox/ was given. Both go by
# number and digest, and forget what is in done/.
fetch_all() {
    echo 'ls -1 new' >todo
    talk || { complain; return; }
    touch "$state/fetching" "$state/delivered"
    # sftp repeats the command above what it prints.
    grep -v '^sftp> ' said >listed
    pass=0
    while [ -s listed ] || [ -s "$state/fetching" ]; do
        read_status received || return 1
        plan_fetching
        [ -s wanted ] || break
        # Twice is enough where nothing is in the way; what is left then is for the next run.
        pass=$((pass + 1))
        if [ "$pass" -gt $((3 + $(wc -l <wanted) / MOST)) ]; then
            left=$((left + $(wc -l <wanted)))
            break
        fi
        fetch_batch
        deliver
        clear_batch
        : >listed
    done
}

# Write to `wanted` what is to be fetched or only to be moved to done/: state/number/sha256/size/name.
plan_fetching() {
    rows received.json "state number sha256 is_removed size_bytes name" >there
    for list in fetching delivered; do
        LC_ALL=C awk -F / '
        FILENAME == "there" { if ($4 == "false" && $1 ~ /^(accepted|collected)$/) stays[$2 "/" $3]; next }
        ($0 in stays)' there "$state/$list" >kept
        mv kept "$state/$list"
    done
    LC_ALL=C awk -F / -v begun="$state/fetching" -v most=$MOST '
    FILENAME == begun { is_begun[$0]; next }
    $4 == "false" && ($1 == "accepted" || $1 == "collected" && ($2 "/" $3 in is_begun)) && chosen++ < most {
        print $1 "/" $2 "/" $3 "/" $5 "/" $6
    }' "$state/fetching" there >wanted
}

fetch_batch() {
    cut -d / -f 2,3 wanted | sort -u - "$state/fetching" >begun && mv begun "$state/fetching"
    while IFS=/ read -r word number sha256 size name; do
        if grep -qxF "$number/$sha256" "$state/delivered"; then
            # It is here. It has to be read once more where the relay does not know that it was.
            [ "$word" = collected ] && continue
            rm -f "part/$number"
        fi
        if [ -s "part/$number" ]; then way='reget'; else way='get'; fi
        printf -- '-%s %s part/%d\n' "$way" "$(quoted "receive/$name")" "$number"
    done <wanted >todo
    [ ! -s todo ] || talk
    while IFS=/ read -r word number sha256 size name; do
        [ -f "part/$number" ] || continue
        if grep -qxF "$number/$sha256" "$state/delivered"; then
            rm "part/$number"
        elif [ "$(digest "part/$number")" = "$sha256" ]; then
            mkdir -p "$state/whole/$number-$sha256" && mv -f "part/$number" "$state/whole/$number-$sha256/$name"
        elif [ "$(wc -c <"part/$number")" -ge "$size" ]; then
            # Long enough and wrong: from the beginning. What is shorter goes on.
            rm "part/$number"
        fi
    done <wanted
}

# Give inbox/ what lies in whole/: first it is on the disk, then noted, then given in one step. After a kill in
# between it is still in whole/.
deliver() {
    set -- "$state"/whole/*
    [ -d "$1" ] || return 0
    sync
    for box; do
        mark=${box##*/} number=${mark%-*} sha256=${mark#*-}
        for file in "$box"/* "$box"/.[!.]*; do
            [ -f "$file" ] || continue
            grep -sqxF "$number/$sha256" "$state/delivered" || echo "$number/$sha256" >>"$state/delivered"
            place "$file" "$folder/inbox" "${file##*/}" "$number" && fetched=$((fetched + 1))
        done
        rmdir "$box"
    done
    sync
}

# Tell the relay that this computer has what it has: only then does it leave receive/.
clear_batch() {
    while IFS=/ read -r word number sha256 size name; do
        grep -qxF "$number/$sha256" "$state/delivered" || continue
        printf -- '-rename %s %s\n' "$(quoted "receive/$name")" "$(quoted "done/$name")"
    done <wanted >todo
    [ ! -s todo ] || talk
}

main "$@"
