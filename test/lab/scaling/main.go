// Draws what hexkv-bench --cells ... -o json measured (standard input): time of an op against cells. See test/bench/scaling.sh.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"image/color"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

type row struct {
	Op      string  `json:"op"`
	Cells   float64 `json:"n_kv"`
	HeadDim int     `json:"head_dim"`
	Heads   int     `json:"kv_heads"`
	Group   int     `json:"group"`
	Cache   string  `json:"cache"`
	ISA     string  `json:"isa"`
	Threads int     `json:"threads"`
	MS      float64 `json:"ms"`
}

func main() {
	out := flag.String("o", "", "the SVG file to write")
	head := flag.Int("head", 128, "head size to draw")
	flag.Parse()
	if err := run(*out, *head); err != nil {
		fmt.Fprintln(os.Stderr, "scaling:", err)
		os.Exit(1)
	}
}

func run(out string, head int) error {
	var rows []row
	if err := json.NewDecoder(os.Stdin).Decode(&rows); err != nil {
		return err
	}
	points := map[string]plotter.XYs{}
	var caches []string
	p := plot.New()
	for _, r := range rows {
		if r.HeadDim != head || r.Op != "decode" {
			continue
		}
		if points[r.Cache] == nil {
			caches = append(caches, r.Cache)
		}
		points[r.Cache] = append(points[r.Cache], plotter.XY{X: r.Cells, Y: r.MS})
		p.Title.Text = fmt.Sprintf("Attention of one token: %d KV heads of %d, group %d, %d threads, %s", r.Heads, r.HeadDim, r.Group, r.Threads, r.ISA)
	}
	if len(caches) == 0 {
		return fmt.Errorf("no decode rows of head size %d; measure with hexkv-bench --ops decode --cells 1024,8192 -o json", head)
	}
	p.X.Label.Text, p.Y.Label.Text = "cells", "milliseconds"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	for i, cache := range caches {
		line, dots, err := plotter.NewLinePoints(points[cache])
		if err != nil {
			return err
		}
		c := color.RGBA{R: uint8(90 + 35*i), G: uint8(90 + 35*i), B: uint8(90 + 35*i), A: 255}
		if len(cache) > 4 && cache[:4] == "hex:" {
			c = color.RGBA{G: uint8(60 + 25*i), B: 200, A: 255}
		}
		line.Color, dots.Color, dots.Shape = c, c, draw.CircleGlyph{}
		p.Add(line, dots)
		p.Legend.Add(cache, line, dots)
	}
	return p.Save(18*vg.Centimeter, 11*vg.Centimeter, out)
}
