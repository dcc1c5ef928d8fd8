// What Grafana's own types say of a dashboard, written as JSON: there an enum is its value.

import type { AnnotationQuery, Dashboard, DataQuery, FieldConfig, FieldConfigSource, Panel, RowPanel, VariableModel } from "@grafana/schema";
import type { Options as BarGauge } from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type {
  FieldConfig as HeatmapField,
  Options as Heatmap,
} from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type { Options as Logs } from "@grafana/schema/dist/esm/raw/composable/logs/panelcfg/x/LogsPanelCfg_types.gen";
import type { Options as Stat } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type {
  FieldConfig as TableField,
  Options as Table,
} from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type {
  FieldConfig as TimeSeriesField,
  Options as TimeSeries,
} from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

type Plain<T> = unknown extends T
  ? T
  : T extends string
    ? `${T}`
    : T extends number
      ? `${T}` extends `${infer N extends number}`
        ? N
        : never
      : T extends boolean | null | undefined
        ? T
        : T extends (infer Item)[]
          ? Plain<Item>[]
          : { [Key in keyof T]: Plain<T[Key]> };

// The package has no types of the data sources' own parts.
type Query = Plain<DataQuery> & {
  expr: string;
  instant?: boolean;
  range?: boolean;
  exemplar?: boolean;
  editorMode?: "code" | "builder";
  format?: "time_series" | "table" | "heatmap";
  legendFormat?: string;
  interval?: string;
  maxLines?: number;
};

type Variable = Plain<VariableModel> & { definition?: string; auto?: boolean; auto_count?: number; auto_min?: string };

type PanelOf<Type extends string, Options, Custom> = Omit<Plain<Panel>, "type" | "options" | "fieldConfig" | "targets"> & {
  type: Type;
  options: Partial<Plain<Options>>;
  fieldConfig: Omit<Plain<FieldConfigSource>, "defaults"> & {
    defaults: Omit<Plain<FieldConfig>, "custom"> & { custom?: Partial<Plain<Custom>> };
  };
  targets: Query[];
};

type Drawn =
  | PanelOf<"bargauge", BarGauge, never>
  | PanelOf<"heatmap", Heatmap, HeatmapField>
  | PanelOf<"logs", Logs, never>
  | PanelOf<"stat", Stat, never>
  | PanelOf<"table", Table, TableField>
  | PanelOf<"timeseries", TimeSeries, TimeSeriesField>;

type Mark = Omit<Plain<AnnotationQuery>, "target"> & {
  expr?: string;
  target?: Query;
  step?: string;
  titleFormat?: string;
  textFormat?: string;
  tagKeys?: string;
  useValueForTime?: boolean;
};

export type Board = Omit<Plain<Dashboard>, "annotations" | "panels" | "templating"> & {
  annotations: { list: Mark[] };
  panels: (Drawn | (Omit<Plain<RowPanel>, "panels"> & { panels: Drawn[] }))[];
  templating: { list: Variable[] };
};
