package main

import (
	"cmp"
	"errors"
	"image/color"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

var (
	stockColor = color.RGBA{R: 120, G: 120, B: 120, A: 255}
	hexColor   = color.RGBA{R: 0, G: 90, B: 180, A: 255}
	otherColor = color.RGBA{R: 150, G: 190, B: 230, A: 255}
	frontColor = color.RGBA{R: 220, G: 150, B: 60, A: 255}
)

// series are points that belong together.
type series struct {
	name   string
	color  color.RGBA
	points plotter.XYs
	labels []string
	line   bool // joined, without points
	loose  bool // points alone
}

// pareto plots error against bits of an experiment, and returns the Markdown of the image.
func (l *laboratory) pareto(name, title string) (string, error) {
	rows, err := l.rows(name)
	if errors.Is(err, errNotMeasured) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	stock, hex := series{name: "llama.cpp", color: stockColor}, series{name: "hexkv", color: hexColor}
	for _, r := range rows {
		s := &stock
		if strings.HasPrefix(r.Label, "hex:") {
			s = &hex
		}
		if strings.HasPrefix(r.Label, "f16") {
			continue // the floor
		}
		s.points = append(s.points, plotter.XY{X: r.BitsPerElement, Y: r.Half})
		s.labels = append(s.labels, strings.TrimPrefix(r.Label, "hex:"))
	}
	return l.draw("pareto-"+name, title, "bits per element of K and V", stock, hex)
}

// front plots every setting that was measured on the tuned text, and the line of those that no other beats in bits and error.
func (l *laboratory) front(title string) (string, error) {
	stock, presets := series{name: "llama.cpp", color: stockColor, loose: true}, series{name: "presets", color: hexColor, loose: true}
	others := series{name: "other settings", color: otherColor, loose: true}
	for _, name := range []string{"presets-tuned", "ingredients", "base", "residual", "residual-quality", "selection", "degree"} {
		rows, err := l.rows(name)
		if errors.Is(err, errNotMeasured) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		for _, r := range rows {
			s, label := &others, ""
			switch {
			case strings.HasPrefix(r.Label, "f16 ("): // the floor
				continue
			case name == "presets-tuned" && strings.HasPrefix(r.Label, "hex:"):
				s, label = &presets, strings.TrimPrefix(r.Label, "hex:")
			case name == "presets-tuned":
				s, label = &stock, r.Label
			}
			s.points, s.labels = append(s.points, plotter.XY{X: r.BitsPerElement, Y: r.Half}), append(s.labels, label)
		}
	}
	best := series{name: "front", color: frontColor, line: true}
	all := slices.Concat(stock.points, presets.points, others.points)
	slices.SortFunc(all, func(a, b plotter.XY) int { return cmp.Or(cmp.Compare(a.X, b.X), cmp.Compare(a.Y, b.Y)) })
	for _, p := range all {
		if n := len(best.points); n == 0 || p.Y < best.points[n-1].Y {
			best.points, best.labels = append(best.points, p), append(best.labels, "")
		}
	}
	return l.draw("front", title, "bits per element of K and V", best, others, stock, presets)
}

// lengths plots the error of each cache against the length of the window.
func (l *laboratory) lengths(title string) (string, error) {
	byCache := map[string]*series{}
	var order []string
	for _, x := range []struct {
		name string
		size float64
	}{{"presets", 2048}, {"presets-4096", 4096}, {"presets-8192", 8192}} {
		rows, err := l.rows(x.name)
		if errors.Is(err, errNotMeasured) {
			continue
		}
		if err != nil {
			return "", err
		}
		for _, r := range rows {
			s := byCache[r.Label]
			if strings.HasPrefix(r.Label, "f16") || r.Label == "hex:paper" {
				continue
			}
			if s == nil {
				s = &series{name: r.Label, color: stockColor}
				if strings.HasPrefix(r.Label, "hex:") {
					s.color = hexColor
				}
				byCache[r.Label] = s
				order = append(order, r.Label)
			}
			s.points = append(s.points, plotter.XY{X: x.size, Y: r.Half})
			s.labels = append(s.labels, "")
		}
	}
	var all []series
	for _, label := range order {
		s := byCache[label]
		s.labels[len(s.labels)-1] = strings.TrimPrefix(label, "hex:")
		all = append(all, *s)
	}
	if len(all) == 0 {
		return "", nil
	}
	return l.draw("lengths", title, "tokens of the window", all...)
}

// draw writes NAME.svg in the work folder: KL divergence, logarithmic.
func (l *laboratory) draw(name, title, x string, all ...series) (string, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, "KL divergence from f16, second half, nats"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Add(plotter.NewGrid())
	for _, s := range all {
		line, points, err := plotter.NewLinePoints(s.points)
		if err != nil {
			return "", err
		}
		line.Color, points.Color, points.Shape = s.color, s.color, draw.CircleGlyph{}
		labels, err := plotter.NewLabels(plotter.XYLabels{XYs: s.points, Labels: s.labels})
		if err != nil {
			return "", err
		}
		labels.Offset = vg.Point{X: 5, Y: 4}
		if !s.loose {
			p.Add(line)
		}
		if !s.line {
			p.Add(points)
		}
		p.Add(labels)
	}
	p.X.Max *= 1.06 // room for labels
	file := name + ".svg"
	if err := p.Save(18*vg.Centimeter, 11*vg.Centimeter, filepath.Join(l.work, file)); err != nil {
		return "", err
	}
	l.plots = append(l.plots, file)
	return "![" + title + "](" + file + ")", nil
}
