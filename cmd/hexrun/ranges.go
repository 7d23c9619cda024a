package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/hexkv"
)

// ranges says what the values of number flags may be, by the main name. It stands in messages after "use".
var ranges = map[string]string{
	"ctx-size":       "a whole number of tokens, such as 8192",
	"batch-size":     "1 to 1048576 tokens",
	"ubatch-size":    "1 to 1048576 tokens",
	"threads":        "1 to 512, or 0 for the physical cores",
	"predict":        "1 or more tokens, or -1 for no limit",
	"repetitions":    "1 to 1000 rounds",
	"seed":           "0 to 4294967295, or -1 for another seed each time",
	"temp":           "0 to 100",
	"top-k":          "0 or more",
	"top-p":          "0 to 1",
	"min-p":          "0 to 1",
	"repeat-penalty": "0 to 100",
	"step":           "1 to 4096 tokens",
	"hex-sink":       "0 to 65536 tokens",
	"hex-recent":     "0 to 16777216 tokens, or -1 to take them from the context",
	"hex-heavy":      "a share of the context, 0 to 1",
	"hex-backbone":   "a share of the context, 0 to 1",
	"hex-seed":       "0 to 4294967295",
	"hex-mean":       "0 to 16777216 rows",
	"hex-half-life":  "1 to 16777216 queries",
	"hex-unbias":     "a share, 0 to 1",
}

// rangeOf returns what a number flag may be, by any of its names.
func rangeOf(cmd *cli.Command, name string) string {
	for _, f := range cmd.Flags {
		if names := f.Names(); slices.Contains(names, name) && ranges[names[0]] != "" {
			return ranges[names[0]]
		}
	}
	return "a number"
}

// needsPreset tells a user who wrote --hex alone what it takes.
func needsPreset() error {
	return usagef("--hex needs a preset: use one of %s", strings.Join(hexkv.Presets(), ", "))
}
