package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/hexkv"
)

// Errors of settings name the flags that the user typed, and none of the library's names.
func TestErrorsNameFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--hex tiny --hex-sink -1":                                   "--hex-sink -1 is out of range; use 0 or more",
		"--hex tiny --hex-sink 99999":                                "--hex-sink 99999 is outside 0..65536; use 4, the default",
		"--hex tiny --hex-recent -3":                                 "--hex-recent -3 is out of range; use -1 or more",
		"--hex tiny --hex-heavy 2":                                   "--hex-heavy 2 is out of range; use a share of the context, 0 to 1",
		"--hex tiny --hex-backbone -1":                               "--hex-backbone -1 is out of range; use a share of the context, 0 to 1",
		"--hex tiny --hex-mean -1":                                   "--hex-mean -1 is out of range; use 0 or more",
		"--hex tiny --hex-half-life -1":                              "--hex-half-life -1 is out of range; use 1 or more",
		"--hex tiny --hex-refine f17":                                "--hex-refine 'f17' is unknown; use none, hex1 to hex4, q8_0 or f16",
		"--hex-refine f16":                                           "--hex-refine is set but HEX is off; choose a preset such as --hex balanced, or leave --hex-refine out",
		"--hex-backbone-kind log":                                    "--hex-backbone-kind is set but HEX is off; choose a preset such as --hex balanced, or leave --hex-backbone-kind out",
		"--hex tiny --hex-refine none --hex-sink 4":                  "--hex-sink is set but --hex-refine is none, so nothing is refined; leave one of them out",
		"--hex tiny --hex-backbone 0.1 --hex-backbone-kind none":     "--hex-backbone 0.1 is set but --hex-backbone-kind is none; leave one of them out",
		"--hex tiny --hex-backbone 0.1 --hex-backbone-kind channels": "--hex-backbone-kind channels stores single values and cannot use --hex-refine hex3; use f16",
		"--hex tiny -ctv q8_0":                                       "--hex tiny stores V in hex1 to hex4, but -ctv is q8_0; leave one of them out",
		"-ctk q9":                                                    "-ctk 'q9' is unknown; use f16, ",
		"--hex gigantic":                                             "--hex 'gigantic' is unknown; use one of off, ",
		"--min-p 2":                                                  "--min-p 2 is out of range; use 0 to 1",
		"--temp 101":                                                 "--temp 101 is out of range; use 0 to 100",
		"--repeat-penalty -1":                                        "--repeat-penalty -1 is out of range; use 0 to 100",
		"--top-k 2000000":                                            "--top-k 2e+06 is out of range",
	} {
		_, err := parse(t, strings.Fields(args)...)
		require.Error(t, err, args)
		assert.True(t, strings.HasPrefix(err.Error(), want), "%s: %s", args, err)
		assert.ErrorIs(t, err, hexkv.ErrInvalidConfig, args)
	}
}

// What a session refuses, by the texts of the C library.
func TestErrorsOfSessionsNameFlags(t *testing.T) {
	for text, want := range map[string]string{
		"context size = -1 is out of range; use 1 to 9, or 0 for the trained context":                "-c -1 is out of range; use 1 to 9, or 0 for the trained context",
		"ubatch size = -1 is out of range; use 1 to 9, or 0 for 512":                                 "-ub -1 is out of range; use 1 to 9, or 0 for 512",
		"threads = 600 is out of range; use 1 to 512, or 0 for the physical cores":                   "-t 600 is out of range; use 1 to 512, or 0 for the physical cores",
		"heavy = 2 is outside 0..1; use 0.086 or 0.055 as the presets do, or 0 for no heavy hitters": "--hex-heavy 2 is outside 0..1; use 0.086 or 0.055 as the presets do, or 0 for no heavy hitters",
	} {
		assert.EqualError(t, inFlags(&hexkv.Error{Code: hexkv.CodeConfig, Op: "Model.NewSession", Text: text}), want)
		spec := &hexkv.Error{Code: hexkv.CodeConfig, Op: "ParseConfig", Text: text}
		assert.Equal(t, error(spec), inFlags(spec), "keys of a cache specification stay")
	}
	other := errors.New("sink = 3")
	assert.Equal(t, other, inFlags(other))
}

// Every number flag says which numbers it takes.
func TestRanges(t *testing.T) {
	for _, c := range newApp(&env{}).Commands {
		for _, f := range c.Flags {
			switch f.(type) {
			case *cli.IntFlag, *cli.Int64Flag, *cli.FloatFlag, *cli.Uint32Flag:
				for _, name := range f.Names() {
					assert.Equal(t, ranges[f.Names()[0]], rangeOf(c, name))
					assert.NotEqual(t, "a number", rangeOf(c, name), "%s %s", c.Name, name)
				}
			}
		}
	}
	assert.Equal(t, "a number", rangeOf(&cli.Command{}, "none"))
}
