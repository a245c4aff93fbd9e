# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Completion of loam's commands and options, for bash-completion.

# A part of memory, size=SIZE,KEY=VALUE,...: bash has cut it at each "=", and replaces what follows the last one.
_loam_part() {
    local last=${1##*,} front
    local words='size= pages= node= policy= share= populate= lock='

    front=${1%"$last"}
    front=${front##*=}
    if [[ $last == *=* ]]; then
        front=
    fi
    case $last in
    pages=*) words='1G 2M thp 4K auto' ;;
    policy=*) words='strict preferred interleave' ;;
    share=* | populate=* | lock=*) words='on off' ;;
    *=*) words= ;;
    *) compopt -o nospace 2>/dev/null ;;
    esac
    mapfile -t COMPREPLY < <(compgen -P "$front" -W "$words" -- "${last#*=}")
}

# host and place: WORD BEFORE, and the options of either.
_loam_host() {
    local front words=

    case $2 in
    --pages | -p)
        front=${1%"${1##*,}"}
        mapfile -t COMPREPLY < <(compgen -P "$front" -W '2M 1G thp 4K' -- "${1##*,}")
        return
        ;;
    --connect) words='qemu:///system qemu:///session test:///default' ;;
    --kernel | --initrd | --emulator)
        mapfile -t COMPREPLY < <(compgen -f -- "$1")
        return
        ;;
    --memory | -m | --vcpus | --timeout | --name | --append) ;;
    *) [[ ${COMP_WORDS[1]} == host ]] && words="reserve $3" || words=$4 ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$1")
}

_loam() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words=
    local line=${COMP_LINE:0:COMP_POINT}
    local memory='--lazy --lock --low-limit --memory --node --pages --populate --populate-threads'
    local guest='--cmdline --initrd --kernel --vcpus'
    local host='--connect --emulator --give-back --json --timeout --help'
    local place='--append --connect --emulator --initrd --json --kernel --memory --name --node-strict --pages --run'

    if [[ $line =~ [[:space:]](--memory|-m)[[:space:]=]+([^[:space:]]*[=,][^[:space:]]*|s[a-z]*)$ ]]; then
        _loam_part "${BASH_REMATCH[2]}"
        return
    fi
    if [ "$word" = = ]; then
        word=
    elif [ "$before" = = ]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    if [[ ${COMP_WORDS[1]} == host || ${COMP_WORDS[1]} == place ]]; then
        _loam_host "$word" "$before" "$host" "$place --timeout --vcpus --help"
        return
    fi
    case $before in
    --pages | -p) words='1G 2M thp 4K auto' ;;
    --on-reset) words='fail pass restart' ;;
    --clock) words='goes-on jumps' ;;
    --kernel | --initrd | --trace | --gdb | --control | --restore | --parent)
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    --memory | -m | --low-limit | --node | --vcpus | -c | --cmdline | --populate-threads | --timeout | -t | --connect | --ignore) ;;
    *)
        if [ "$COMP_CWORD" -eq 1 ]; then
            words='run plan snapshot domain host place version --help'
        elif [[ ${COMP_WORDS[1]} == run || ${COMP_WORDS[1]} == plan ]]; then
            words="$memory $guest --json --no-tune --on-reset --timeout --trace --gdb --control --restore --clock --uid --gid --no-sandbox --help"
        elif [ "${COMP_WORDS[1]}" = snapshot ]; then
            words='--json --track --parent --help'
            [[ $word == -* ]] || { mapfile -t COMPREPLY < <(compgen -f -- "$word") && return; }
        elif [ "${COMP_WORDS[1]}" = domain ]; then
            words='run show --help'
            if [ "$COMP_CWORD" -gt 2 ]; then
                words='--connect --ignore --show --help'
                [[ $word == -* ]] || words= # a file
            fi
        fi
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -o default -F _loam loam
