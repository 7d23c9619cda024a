package main

import (
	"context"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/grid"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
)

func evalCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "eval",
		Usage:    "measure what caches do to a model's answers, with intervals",
		Commands: []*cli.Command{evalKLDCommand(e), evalGreedyCommand(e), evalRecallCommand(e)},
		Action: action(e, func(_ context.Context, cmd *cli.Command) error {
			return usagef("eval needs to know what to measure; use hexrun eval kld, for example; see hexrun eval --help")
		}),
	}
}

const evalCaches = "q8_0,q4_0,hex:balanced,hex:tiny"

// evalFlags are those of every command of eval.
func evalFlags() []cli.Flag {
	return append(modelFlags(), threadsFlag(),
		texts(aboutCache, "caches", "LIST|what to measure, separated by commas, may be repeated: q8_0/q4_0, hex:PRESET, hex:PRESET:heavy=0.1, ...", evalCaches),
		texts(aboutCache, "grid", "FILE|more of them, one on each line, or label = cache; # begins a comment; may be repeated", ""),
		text(aboutOutput, "resume", "", "FILE|what is finished: kept there, and not measured again"),
		formatFlag(report.Formats...))
}

// evalSettings reads --caches and --grid; without both it takes evalCaches.
func evalSettings(e *env, cmd *cli.Command, step int) ([]setting, error) {
	lists, paths := cmd.StringSlice("caches"), cmd.StringSlice("grid")
	if len(lists) == 0 && len(paths) == 0 {
		lists = []string{evalCaches}
	}
	var g grid.Grid
	for _, list := range lists {
		if err := g.List(list); err != nil {
			return nil, err
		}
	}
	for _, path := range paths {
		text, err := readText(e, path)
		if err != nil {
			return nil, err
		}
		if err := g.File(filepath.Base(path), text); err != nil {
			return nil, err
		}
	}
	if len(g.Settings) == 0 {
		return nil, usagef("--caches and --grid name no cache; use for example --caches q8_0,hex:balanced")
	}
	all := make([]setting, len(g.Settings))
	for i, s := range g.Settings {
		all[i] = setting{cache: s.Spec, label: s.Label, config: s.Config, step: step}
	}
	return all, nil
}
