# Completion of mapfs in fish: asks mapfs itself, in the way of click.

function _mapfs_completion
    set -l response (env _MAPFS_COMPLETE=fish_complete COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -ct) mapfs)

    for completion in $response
        # A value may have commas in it.
        set -l parts (string split --max 1 , -- $completion)

        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case plain
                echo $parts[2]
        end
    end
end

complete --no-files --command mapfs --arguments "(_mapfs_completion)"
