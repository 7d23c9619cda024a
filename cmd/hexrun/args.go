package main

import (
	"strings"

	"github.com/urfave/cli/v3"
)

// singleDash holds the names that llama.cpp's users type with one dash. Longer ones have two.
var singleDash = map[string]bool{
	"m": true, "c": true, "b": true, "ub": true, "t": true, "ngl": true, "n": true, "p": true, "f": true, "s": true,
	"ctk": true, "ctv": true, "sys": true, "d": true, "r": true, "o": true, "v": true, "h": true,
	"fa": true, "cnv": true, "no-cnv": true, "e": true, "hf": true, "hff": true, "mu": true, "i": true, "co": true,
	"nkvo": true, "sm": true, "ts": true, "mg": true, "dev": true,
}

// dashed writes a flag as users type it.
func dashed(name string) string {
	if singleDash[name] {
		return "-" + name
	}
	return "--" + name
}

// normalize lets users write --ctx_size for --ctx-size, as llama.cpp does. Values are left alone, whatever they look
// like, so it must know which flags take one. (urfave/cli itself reads -ctk as one flag, since no short ones are joined.)
func normalize(args []string, commands []*cli.Command) []string {
	takesValue := map[string]bool{} // all flags by name
	var collect func([]*cli.Command)
	collect = func(commands []*cli.Command) {
		for _, c := range commands {
			for _, f := range c.Flags {
				for _, name := range f.Names() {
					takesValue[name] = f.(cli.DocGenerationFlag).TakesValue()
				}
			}
			collect(c.Commands)
		}
	}
	collect(commands)
	out := make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(out, args[i:]...)
		}
		name, value, assigned := strings.Cut(arg, "=")
		if strings.HasPrefix(name, "--") {
			name = strings.ReplaceAll(name, "_", "-")
			if arg = name; assigned {
				arg += "=" + value
			}
		}
		out = append(out, arg)
		if takesValue[strings.TrimLeft(name, "-")] && strings.HasPrefix(name, "-") && !assigned && i+1 < len(args) {
			i++
			out = append(out, args[i])
		}
	}
	return out
}

// flagText writes one line of help: names as users type them, short ones first. A usage text is "HINT|what it does".
func flagText(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	var short, long []string
	for _, name := range f.Names() {
		if singleDash[name] {
			short = append(short, dashed(name))
		} else {
			long = append(long, dashed(name))
		}
	}
	hint, usage, ok := strings.Cut(d.GetUsage(), "|")
	if !ok {
		hint, usage = "", hint
	}
	line := strings.Join(append(short, long...), ", ")
	if hint != "" {
		line += " " + hint
	}
	line += "\t" + usage
	if text := d.GetDefaultText(); text != "" {
		line += " (default: " + text + ")"
	} else if d.TakesValue() && d.IsDefaultVisible() && strings.Trim(d.GetValue(), `"`) != "" {
		line += " (default: " + d.GetValue() + ")"
	}
	if vars := d.GetEnvVars(); len(vars) > 0 {
		line += " [$" + strings.Join(vars, ", $") + "]"
	}
	return line
}
