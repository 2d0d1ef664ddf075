# Turns "program case manager value unit KiB" lines into two Markdown tables a program: medians
# of the value, and of the peak resident memory. KiB is "-" for another figure of the same process.

function median(key, count,    i, j, t, v) {
    for (i = 1; i <= count; i++) v[i] = sample[key, i]
    for (i = 2; i <= count; i++)
        for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    return count % 2 ? v[(count + 1) / 2] : (v[count / 2] + v[count / 2 + 1]) / 2
}

function show(x) { return x < 100 ? sprintf("%.1f", x) : sprintf("%.0f", x) }

# One table: `what` is "time" or "memory".
function table(program, what,    c, m, line, rule, name, manager, key, x, ours, go, best, winner) {
    if (!((what, program) in measured)) return
    line = "| " program ", " (what == "time" ? unit[program] : "peak MiB")
    rule = "|:--"
    for (m = 1; m <= managers[program]; m++) { line = line " | " manager_at[program, m]; rule = rule "|--:" }
    if (what == "time") { line = line " | greywave / Go | greywave / best other in Rust"; rule = rule "|--:|:--" }
    print "\n" line " |\n" rule "|"
    for (c = 1; c <= cases[program]; c++) {
        name = case_at[program, c]
        if (!((what, program, name) in measured)) continue
        line = "| " name
        ours = go = best = 0
        winner = ""
        for (m = 1; m <= managers[program]; m++) {
            manager = manager_at[program, m]
            key = what SUBSEP name SUBSEP manager
            if (!(key in samples)) { line = line " | –"; continue }
            x = median(key, samples[key])
            line = line " | " show(x)
            if (manager == "greywave") ours = x
            else if (manager ~ /^go($|-)/) { if (!go || x < go) go = x }
            else if (manager !~ /^greywave/ && (!best || x < best)) { best = x; winner = manager }
        }
        if (what == "time")
            line = line " | " (ours && go ? sprintf("%.2f", ours / go) : "–") \
                        " | " (ours && best ? sprintf("%.2f (%s)", ours / best, winner) : "–")
        print line " |"
    }
}

function add(what, x,    key) {
    key = what SUBSEP $2 SUBSEP $3
    sample[key, ++samples[key]] = x
    measured[what, $1]
    measured[what, $1, $2]
}

{
    if (!($1 in unit)) { programs++; program_at[programs] = $1; unit[$1] = $5 }
    if (!(($1, $2) in seen_case)) { seen_case[$1, $2]; case_at[$1, ++cases[$1]] = $2 }
    if (!(($1, $3) in seen_manager)) { seen_manager[$1, $3]; manager_at[$1, ++managers[$1]] = $3 }
    add("time", $4)
    if ($6 != "-") add("memory", $6 / 1024)
}

END {
    for (p = 1; p <= programs; p++) {
        table(program_at[p], "time")
        table(program_at[p], "memory")
    }
}
