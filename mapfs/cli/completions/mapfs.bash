# Completion of mapfs in bash: asks mapfs itself, in the way of click.

_mapfs_completion() {
    local response type value
    response=$(
        IFS=$'\n'
        COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _MAPFS_COMPLETE=bash_complete "$1"
    )
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                [[ $value != *[![:alnum:]_./,:=@%+~-]* ]] || printf -v value %q "$value"
                COMPREPLY+=("$value")
                ;;
        esac
    done <<<"$response"
}

complete -o nosort -F _mapfs_completion mapfs
