# Which architectures of a log (-lv 4) have a HEX cache, against the list of those that have none: a line FAIL for each that differs.
#
#   awk [-v all=1] -f architectures.awk fallbacks.txt LOG      all: every architecture of the list must be in the log

FNR == 1   { file++ }
file == 1  { if (NF && $1 !~ /^#/) { name = $1; listed[name] = $2; $1 = $2 = ""; sub(/^ +/, ""); why[name] = $0 } next }
/general\.architecture +str/ { end_of_model(); arch = $NF; is = "none"; reason = "" }
/log_plan: refined \(/       { note("hex") }
/HEX is off for this model: / { note("off"); reason = $0; sub(/.*this model: /, "", reason) }

function note(what)     { if (is == "none") is = what; else if (is != what) is = "mixed" }
function end_of_model() { # models of an architecture agree
    if (arch == "") return
    if (!(arch in state)) { names[++n] = arch; state[arch] = is }
    else if (state[arch] != is) state[arch] = "mixed"
    if (reason != "") given[arch] = reason
}
function shown(what, reason) {
    if (what == "hex")   return "a HEX cache"
    if (what == "off")   return "a fall-back" (reason == "" ? "" : ", '" reason "'")
    if (what == "mixed") return "a HEX cache in a part of its models or layers only" (reason == "" ? "" : ", '" reason "'")
    return "no cache that the log tells of"
}
END {
    if (is != "none" || !(arch in state)) end_of_model() # the end of a log may be lost, and the last model's lines with it
    for (i = 1; i <= n; i++) {
        arch = names[i]
        want = arch in listed ? listed[arch] : "hex"
        if (state[arch] != want) print "FAIL " arch ": " shown(state[arch], given[arch]) "; by fallbacks.txt it has " shown(want, why[arch])
        else if (want == "off" && !index(given[arch], why[arch])) print "FAIL " arch ": falls back for '" given[arch] "'; by fallbacks.txt for '" why[arch] "'"
    }
    for (arch in listed) if (all && !(arch in state)) print "FAIL " arch ": in fallbacks.txt, and not in the log"
    if (!n) print "FAIL architectures: the log names none"
}
