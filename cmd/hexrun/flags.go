package main

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/hexkv"
)

// Categories of flags in the help text.
const (
	aboutModel    = "Model and context"
	aboutCache    = "Cache"
	aboutSampling = "Sampling"
	aboutPrompt   = "Prompt"
	aboutOutput   = "Output"
)

// envVar names the variable that upstream's tools read for the same flag; empty for none.
func envVar(name string) cli.ValueSourceChain {
	if name == "" {
		return cli.ValueSourceChain{}
	}
	return cli.EnvVars("LLAMA_ARG_" + name)
}

// The constructors below take all names of a flag, separated by spaces, the main one first.

func text(category, names, env, usage string) *cli.StringFlag {
	n := strings.Fields(names)
	return &cli.StringFlag{Name: n[0], Aliases: n[1:], Category: category, Sources: envVar(env), Usage: usage}
}

// texts is a flag that may be repeated. Its values are not split at commas: names of files have some.
func texts(category, names, usage, byDefault string) *cli.StringSliceFlag {
	n := strings.Fields(names)
	return &cli.StringSliceFlag{Name: n[0], Aliases: n[1:], Category: category, Usage: usage, DefaultText: byDefault}
}

func whole(category, names, env, usage string, value int, byDefault string) *cli.IntFlag {
	n := strings.Fields(names)
	return &cli.IntFlag{Name: n[0], Aliases: n[1:], Category: category, Sources: envVar(env), Usage: usage, Value: value,
		DefaultText: byDefault}
}

func real(category, names, env, usage string, value float64, byDefault string) *cli.FloatFlag {
	n := strings.Fields(names)
	return &cli.FloatFlag{Name: n[0], Aliases: n[1:], Category: category, Sources: envVar(env), Usage: usage, Value: value,
		DefaultText: byDefault}
}

func modelFlags() []cli.Flag {
	gpu := text(aboutModel, "n-gpu-layers gpu-layers ngl", "N_GPU_LAYERS", "N|layers on the GPU, or `all`; no effect without one")
	gpu.Value = "all"
	return []cli.Flag{
		text(aboutModel, "model m", "MODEL", "FILE|the model, a GGUF file; without it $HEXRUN_MODEL, else the default model of the build"),
		gpu,
		&cli.BoolFlag{Name: "no-mmap", Category: aboutModel, Usage: "read the model into memory instead of mapping its file"},
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Category: aboutOutput, Usage: "show llama.cpp's log on stderr"},
	}
}

func sizeFlag(size int) cli.Flag {
	return whole(aboutModel, "ctx-size c", "CTX_SIZE", "N|tokens of context; 0: as the model was trained", size, "")
}

func threadsFlag() cli.Flag {
	return whole(aboutModel, "threads t", "THREADS", "N|CPU threads", 0, "physical cores")
}

func contextFlags(size int) []cli.Flag {
	flash := text(aboutModel, "flash-attn fa", "FLASH_ATTN", "on or auto|flash attention: used wherever the model can, which HEX needs; off is refused")
	flash.Value, flash.Validator = "auto", flashAttention
	return []cli.Flag{
		flash,
		sizeFlag(size),
		whole(aboutModel, "batch-size b", "BATCH", "N|most tokens of one call", 2048, ""),
		whole(aboutModel, "ubatch-size ub", "UBATCH", "N|tokens computed at once; smaller lets compression act within a prompt", 512, ""),
		threadsFlag(),
	}
}

func offloadFlag() cli.Flag {
	return &cli.BoolFlag{Name: "no-kv-offload", Aliases: []string{"nkvo"}, Category: aboutModel, Usage: "keep the cache and its attention off the GPU"}
}

func cacheFlags() []cli.Flag {
	presets := strings.Join(hexkv.Presets(), ", ")
	fromPreset := "from the preset"
	hex := text(aboutCache, "hex", "HEX", "PRESET|compressed cache: "+presets+"; without it the stock f16 cache; the flags below override single settings")
	hex.Validator = func(preset string) error {
		if strings.HasPrefix(preset, "-") { // the next flag
			return needsPreset()
		}
		return nil
	}
	return []cli.Flag{
		text(aboutCache, "cache-type-k ctk", "CACHE_TYPE_K", "TYPE|type of K: f16, q8_0, q4_0, ..., or hex1 to hex4"),
		text(aboutCache, "cache-type-v ctv", "CACHE_TYPE_V", "TYPE|type of V"),
		hex,
		text(aboutCache, "hex-refine", "HEX_REFINE", "CODEC|residual of refined cells: none, hex1, hex2, hex3, hex4, q8_0, f16"),
		whole(aboutCache, "hex-sink", "HEX_SINK", "N|first tokens that stay refined", 0, fromPreset),
		whole(aboutCache, "hex-recent", "HEX_RECENT", "N|recent tokens that are refined; -1: from the context", 0, fromPreset),
		real(aboutCache, "hex-heavy", "HEX_HEAVY", "F|heavy hitters, as a share of the context", 0, fromPreset),
		real(aboutCache, "hex-backbone", "HEX_BACKBONE", "F|static backbone, as a share of the context", 0, fromPreset),
		text(aboutCache, "hex-backbone-kind", "HEX_BACKBONE_KIND", "KIND|expander, random, strided, log, channels or none"),
		&cli.Uint32Flag{Name: "hex-seed", Category: aboutCache, Sources: envVar("HEX_SEED"), Usage: "N|seed of the backbone", DefaultText: fromPreset},
		whole(aboutCache, "hex-mean", "HEX_MEAN", "N|rows whose mean centres K; 0: no centring", 0, fromPreset),
		whole(aboutCache, "hex-half-life", "HEX_HALF_LIFE", "N|half-life of heavy-hitter scores, in queries", 0, fromPreset),
		real(aboutCache, "hex-unbias", "HEX_UNBIAS", "F|share of the bias of coding noise on attention that is taken off", 0, fromPreset),
	}
}

func samplingFlags() []cli.Flag {
	return []cli.Flag{
		whole(aboutSampling, "predict n-predict n", "N_PREDICT", "N|most tokens of a reply; -1: no limit", -1, ""),
		&cli.Int64Flag{Name: "seed", Aliases: []string{"s"}, Category: aboutSampling, Usage: "N|seed; -1: another one each time", Value: -1},
		real(aboutSampling, "temp temperature", "TEMPERATURE", "F|temperature; 0: always the likeliest token", 0.8, ""),
		whole(aboutSampling, "top-k", "TOP_K", "N|sample from the N likeliest tokens; 0: all", 40, ""),
		real(aboutSampling, "top-p", "TOP_P", "F|sample from the likeliest tokens of this total probability; 1: all", 0.95, ""),
		real(aboutSampling, "min-p", "MIN_P", "F|least probability, as a share of the likeliest token's; 0: off", 0.05, ""),
		real(aboutSampling, "repeat-penalty", "", "F|penalty of repeated tokens; 1: off", 1, ""),
		text(aboutSampling, "grammar", "", "GBNF|grammar that the reply must follow"),
		text(aboutSampling, "grammar-file", "", "FILE|the same, from a file"),
	}
}

// flashAttention checks -fa; the values are llama.cpp's.
func flashAttention(value string) error {
	switch value {
	case "on", "auto", "enabled", "true", "1", "-1":
		return nil
	}
	return usagef("use on or auto, or leave it out; hexrun always uses flash attention where the model can")
}

// promptFlags are those that run and chat share.
func promptFlags(usage string) []cli.Flag {
	return []cli.Flag{
		text(aboutPrompt, "prompt p", "", "TEXT|"+usage),
		&cli.BoolFlag{Name: "escape", Aliases: []string{"e"}, Category: aboutPrompt, Usage: `read \n, \t, \\, \", \' and \xHH in -p as llama.cpp does`},
		systemFlag(),
	}
}

// promptText reads -p.
func promptText(cmd *cli.Command) (string, error) {
	prompt := cmd.String("prompt")
	if cmd.Bool("escape") {
		prompt = unescape(prompt)
	}
	if !utf8.ValidString(prompt) {
		return "", errors.New("the prompt is not valid UTF-8; convert it to UTF-8")
	}
	return prompt, nil
}

func systemFlag() cli.Flag {
	return text(aboutPrompt, "system-prompt sys", "", "TEXT|system message")
}

func formatFlag(formats ...string) cli.Flag {
	f := text(aboutOutput, "output o", "", "FORMAT|"+strings.Join(formats, ", "))
	f.Value = formats[0]
	f.Validator = func(s string) error {
		for _, known := range formats {
			if s == known {
				return nil
			}
		}
		return usagef("use %s", strings.Join(formats, ", "))
	}
	return f
}
