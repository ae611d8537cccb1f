// What a dashboard file must be: Grafana's own types, and the types of each panel's plugin in place of its free-form parts.
import type { AnnotationQuery, Dashboard, DataQuery, DataSourceRef, FieldConfig, FieldConfigSource, Panel, RowPanel, TableFieldOptions } from '@grafana/schema';
import type { Options as StatOptions } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type { Options as TableOptions } from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type { Options as TimeSeriesOptions, FieldConfig as TimeSeriesField } from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// The package has no types for Prometheus's queries.
interface PrometheusQuery extends DataQuery {
  datasource: DataSourceRef;
  expr: string;
  legendFormat: string;
  editorMode: 'code';
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  range?: boolean;
  interval: string;
}

// An annotation of a Prometheus data source: what its plugin reads beside Grafana's own fields.
type PrometheusAnnotation = Omit<AnnotationQuery, 'target'> & {
  titleFormat: string;
  textFormat: string;
  target: { refId: string; expr: string; interval: string };
};

// Stricter than Grafana where this project wants it: no panel without a title, a description, a unit and a minimal interval.
type Of<Type, Options, Custom> = Omit<Panel, 'type' | 'title' | 'description' | 'interval' | 'options' | 'targets' | 'fieldConfig'> & {
  type: Type;
  title: string;
  description: string;
  interval: string;
  options: Options;
  targets: PrometheusQuery[];
  fieldConfig: Omit<FieldConfigSource, 'defaults'> & { defaults: Omit<FieldConfig, 'custom' | 'unit'> & { custom?: Custom; unit: string } };
};
type Shown = Of<'timeseries', TimeSeriesOptions, TimeSeriesField> | Of<'stat', StatOptions, never> | Of<'table', TableOptions, TableFieldOptions>;

export type File = Omit<Dashboard, 'panels' | 'annotations'> & {
  annotations: { list: PrometheusAnnotation[] };
  panels: Array<Shown | (Omit<RowPanel, 'panels'> & { panels: Shown[] })>;
};
