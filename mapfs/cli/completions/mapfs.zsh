#compdef mapfs
# Completion of mapfs in zsh: asks mapfs itself, in the way of click.

_mapfs_completion() {
    local -a response plain described
    local type value help
    (( $+commands[mapfs] )) || return 1

    response=("${(@f)$(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) _MAPFS_COMPLETE=zsh_complete mapfs)}")

    for type value help in $response; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            plain) [[ $help == _ ]] && plain+=("$value") || described+=("$value:$help") ;;
        esac
    done

    (( $#described )) && _describe -V unsorted described -U
    (( $#plain )) && compadd -U -V unsorted -a plain
}

# As a file in $fpath, this is the body of _mapfs, each time; else it was sourced.
if [[ $funcstack[1] == _mapfs ]]; then
    _mapfs_completion "$@"
else
    compdef _mapfs_completion mapfs
fi
