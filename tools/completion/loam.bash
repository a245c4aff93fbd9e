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

_loam() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words=
    local line=${COMP_LINE:0:COMP_POINT}
    local memory='--lazy --lock --low-limit --memory --node --pages --populate'
    local guest='--cmdline --initrd --kernel --vcpus'

    if [[ $line =~ [[:space:]](--memory|-m)[[:space:]=]+([^[:space:]]*[=,][^[:space:]]*|s[a-z]*)$ ]]; then
        _loam_part "${BASH_REMATCH[2]}"
        return
    fi
    if [ "$word" = = ]; then
        word=
    elif [ "$before" = = ]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case $before in
    --pages | -p) words='1G 2M thp 4K auto' ;;
    --on-reset) words='fail pass restart' ;;
    --kernel | --initrd)
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    --memory | -m | --low-limit | --node | --vcpus | -c | --cmdline | --timeout | -t) ;;
    *)
        if [ "$COMP_CWORD" -eq 1 ]; then
            words='run plan version --help'
        elif [[ ${COMP_WORDS[1]} == run || ${COMP_WORDS[1]} == plan ]]; then
            words="$memory $guest --json --on-reset --timeout --help"
        fi
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -o default -F _loam loam
